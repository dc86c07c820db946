//! What the `AWS_*` variables mean. `object_store` knows most of them; here is what it leaves out:
//! authorities of one's own, buckets in the host's name, and values that are blank.

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{Certificate, ClientConfigKey, ClientOptions};
use url::{Host, Url};

use super::ConnectError;

const CA_BUNDLE: &str = "AWS_CA_BUNDLE";

/// Everything that the environment says.
#[derive(Debug)]
pub(crate) struct Settings {
    keys: Vec<(AmazonS3ConfigKey, String)>,
    authorities: Vec<Certificate>,
}

impl Settings {
    /// Reads variables; a blank one counts as not set, as other clients of S3 take it.
    pub(crate) fn read(
        variables: impl IntoIterator<Item = (String, String)>,
        read: impl Fn(&str) -> std::io::Result<Vec<u8>>,
    ) -> Result<Self, ConnectError> {
        let mut settings = Self { keys: Vec::new(), authorities: Vec::new() };
        let set = variables.into_iter().filter(|(_, value)| !value.trim().is_empty());
        for (name, value) in set.filter(|(name, _)| name.starts_with("AWS_")) {
            if name == CA_BUNDLE {
                settings.authorities = authorities(&value, &read)?;
            } else if let Ok(key) = name.to_ascii_lowercase().parse() {
                settings.keys.push((key, value));
            }
        }
        Ok(settings)
    }

    /// A client in the making.
    pub(crate) fn builder(self, bucket: &str) -> Result<AmazonS3Builder, ConnectError> {
        let mut client = ClientOptions::new();
        for authority in self.authorities {
            client = client.with_root_certificate(authority);
        }
        let mut builder = AmazonS3Builder::new();
        for (key, value) in self.keys {
            match key {
                AmazonS3ConfigKey::Client(key) => client = client.with_config(key, value),
                key => builder = builder.with_config(key, value),
            }
        }
        let get = |key| builder.get_config_value(&key);
        let endpoint =
            get(AmazonS3ConfigKey::S3Endpoint).or_else(|| get(AmazonS3ConfigKey::Endpoint));
        if let Some(endpoint) = endpoint {
            let allowed = client.get_config_value(&ClientConfigKey::AllowHttp);
            if endpoint.starts_with("http://") && !is_true(allowed.as_deref()) {
                return Err(ConnectError::Unencrypted);
            }
            let in_the_host = get(AmazonS3ConfigKey::VirtualHostedStyleRequest);
            if is_true(in_the_host.as_deref()) {
                let endpoint = with_bucket_in_host(&endpoint, bucket).unwrap_or(endpoint);
                builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
            }
        }
        Ok(builder.with_bucket_name(bucket).with_client_options(client))
    }
}

/// The certificates in a file. They count beside the system's own.
fn authorities(
    path: &str,
    read: impl Fn(&str) -> std::io::Result<Vec<u8>>,
) -> Result<Vec<Certificate>, ConnectError> {
    let wrong = |why: String| ConnectError::CaBundle { path: path.to_owned(), why };
    let pem = read(path).map_err(|error| wrong(error.to_string()))?;
    let found = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() { Err(wrong("holds no certificate in PEM".to_owned())) } else { Ok(found) }
}

/// As `object_store` reads it.
fn is_true(value: Option<&str>) -> bool {
    let lower = value.map(str::to_ascii_lowercase);
    matches!(lower.as_deref(), Some("1" | "true" | "on" | "yes" | "y"))
}

/// `https://host` as `https://bucket.host`, unless it says so already: `object_store` wants the
/// bucket written there, other clients put it there themselves. An IP address has no room for it.
fn with_bucket_in_host(endpoint: &str, bucket: &str) -> Option<String> {
    let mut url = Url::parse(endpoint).ok()?;
    let Some(Host::Domain(host)) = url.host() else { return None };
    if host == bucket || host.strip_prefix(bucket).is_some_and(|rest| rest.starts_with('.')) {
        return None;
    }
    let host = format!("{bucket}.{host}");
    url.set_host(Some(&host)).ok()?;
    Some(url.as_str().trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings, ConnectError> {
        let variables =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings::read(variables, |path| std::fs::read(path))
    }

    fn builder(variables: &[(&str, &str)]) -> Result<AmazonS3Builder, ConnectError> {
        settings(variables)?.builder("bucket")
    }

    fn endpoint(variables: &[(&str, &str)]) -> Option<String> {
        let builder = builder(variables).expect("a builder");
        let get = |key| builder.get_config_value(&key);
        get(AmazonS3ConfigKey::S3Endpoint).or_else(|| get(AmazonS3ConfigKey::Endpoint))
    }

    #[test]
    fn the_usual_variables_are_taken_and_blank_ones_are_not_set() {
        let builder = builder(&[
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_REGION", "eu-central-1"),
            ("AWS_DEFAULT_REGION", "us-west-2"),
            ("AWS_ENDPOINT_URL", ""),
            ("AWS_SESSION_TOKEN", " "),
            ("AWS_PAGER", "less"),
            ("AWS_BUCKET", "another"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"),
            ("AWS_ROLE_ARN", "arn:aws:iam::1:role/flowtap"),
            ("HOME", "/root"),
        ])
        .expect("a builder");
        let told = [
            (AmazonS3ConfigKey::AccessKeyId, Some("key")),
            (AmazonS3ConfigKey::Region, Some("eu-central-1")),
            (AmazonS3ConfigKey::Endpoint, None),
            (AmazonS3ConfigKey::Token, None),
            (AmazonS3ConfigKey::Bucket, Some("bucket")),
            (AmazonS3ConfigKey::WebIdentityTokenFile, Some("/token")),
            (AmazonS3ConfigKey::RoleArn, Some("arn:aws:iam::1:role/flowtap")),
        ];
        for (key, value) in told {
            assert_eq!(builder.get_config_value(&key).as_deref(), value, "{key:?}");
        }
        builder.build().expect("enough to build a client");
    }

    #[test]
    fn an_endpoint_without_tls_wants_to_be_allowed() {
        let plain = ("AWS_ENDPOINT_URL", "http://127.0.0.1:9000");
        let refused = builder(&[plain]).expect_err("nobody allowed it").to_string();
        assert!(refused.contains("AWS_ALLOW_HTTP=true"), "{refused}");
        for (allow, allowed) in [("true", true), ("1", true), ("false", false)] {
            let result = builder(&[plain, ("AWS_ALLOW_HTTP", allow)]);
            assert_eq!(result.is_ok(), allowed, "{allow}");
        }
        builder(&[("AWS_ENDPOINT_URL", "https://127.0.0.1:9000")]).expect("it has TLS");
    }

    #[test]
    fn the_bucket_stands_in_the_path_or_once_in_the_host() {
        let hosted = ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true");
        for (given, path_style, virtual_hosted) in [
            ("https://s3.test", "https://s3.test", "https://bucket.s3.test"),
            ("https://s3.test:7070/", "https://s3.test:7070/", "https://bucket.s3.test:7070"),
            ("https://bucket.s3.test", "https://bucket.s3.test", "https://bucket.s3.test"),
            ("https://bucket", "https://bucket", "https://bucket"),
            ("https://buckets.test", "https://buckets.test", "https://bucket.buckets.test"),
            ("https://10.0.0.1:9000", "https://10.0.0.1:9000", "https://10.0.0.1:9000"),
        ] {
            let url = ("AWS_ENDPOINT_URL", given);
            assert_eq!(endpoint(&[url]).as_deref(), Some(path_style));
            assert_eq!(endpoint(&[url, hosted]).as_deref(), Some(virtual_hosted));
        }
        let s3 = ("AWS_ENDPOINT_URL_S3", "https://for-s3.test");
        let other = ("AWS_ENDPOINT_URL", "https://for-all.test");
        let both = endpoint(&[other, s3, hosted]);
        assert_eq!(both.as_deref(), Some("https://bucket.for-s3.test"));
        assert_eq!(endpoint(&[hosted]), None, "Amazon's own is known");
    }

    #[test]
    fn an_authority_of_ones_own_is_read_or_told_to_be_wrong() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("ca.pem");
        let path = file.display().to_string();
        let wrong = |why: &str| {
            let error = settings(&[(CA_BUNDLE, &path)]).expect_err(why).to_string();
            assert!(error.starts_with(&format!("AWS_CA_BUNDLE {path}: ")), "{error}");
            error
        };
        assert!(wrong("not there").contains("No such file"));
        std::fs::write(&file, "no certificate").expect("written");
        assert!(wrong("empty").contains("holds no certificate"));
        let pem = || {
            let made = rcgen::generate_simple_self_signed(vec!["s3.test".to_owned()]);
            made.expect("a certificate").cert.pem()
        };
        std::fs::write(&file, pem() + &pem()).expect("written");
        let read = settings(&[(CA_BUNDLE, &path)]).expect("two of them");
        assert_eq!(read.authorities.len(), 2);
        read.builder("bucket").expect("a builder").build().expect("a client");
    }
}
