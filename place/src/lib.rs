//! Where a store is. A URL becomes a folder, or a bucket with a prefix in it, and a bucket the client
//! that reaches it. The agent and `flowtap` both ask here, so that one URL and one environment mean
//! the same to both. Nothing is reached for yet: all that is read are variables and the file of
//! certificates that one of them names.

mod s3;

use std::path::PathBuf;
use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectStore, RetryConfig};
use url::Url;

/// What a URL has to be, for whoever wrote another one.
pub const WANT: &str = "a folder, file:///path or s3://bucket/prefix";

/// A store's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A local folder.
    Folder(PathBuf),
    /// A bucket of an object store.
    Bucket(Bucket),
}

/// A bucket, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Whose kind of bucket it is.
    pub cloud: Cloud,
    /// Its name.
    pub name: String,
    /// What the keys of all objects begin with.
    pub prefix: Path,
}

/// Kinds of object stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    /// Whatever speaks Amazon's S3.
    S3,
    /// Azure Blob Storage; a bucket is a container there.
    Azure,
    /// Google Cloud Storage.
    Gcs,
}

impl Cloud {
    fn of_scheme(scheme: &str) -> Option<Self> {
        match scheme {
            "s3" | "s3a" => Some(Self::S3),
            "az" => Some(Self::Azure),
            "gs" => Some(Self::Gcs),
            _ => None,
        }
    }

    /// The cargo feature that it needs, if it is not built in here.
    fn feature_missing(self) -> Option<&'static str> {
        match self {
            Self::Azure if !cfg!(feature = "azure") => Some("azure"),
            Self::Gcs if !cfg!(feature = "gcs") => Some("gcs"),
            _ => None,
        }
    }

    /// How the names of the variables begin from which the rest is taken.
    pub const fn variables(self) -> &'static str {
        match self {
            Self::S3 => "AWS_",
            Self::Azure => "AZURE_",
            Self::Gcs => "GOOGLE_",
        }
    }
}

/// What is wrong with a URL. None repeats what stands in it: it may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Nobody speaks that.
    #[error("unknown scheme {0:?}")]
    Scheme(String),
    /// It could be spoken by another build.
    #[error(
        "{scheme}:// is not built into this program; build it with `cargo build --release --features {feature}`"
    )]
    NotBuilt {
        /// The URL's scheme.
        scheme: String,
        /// The cargo feature.
        feature: &'static str,
    },
    /// `file://host/path`
    #[error("a file URL names no host: three slashes, then the path")]
    FileHost,
    /// Only a scheme.
    #[error("no bucket is named")]
    NoBucket,
    /// A user or password.
    #[error("credentials come from {0}* variables, not from the URL")]
    Credentials(&'static str),
    /// What follows `?` or `#`.
    #[error("options do not belong behind ? or #; {0}* variables are for them")]
    Options(&'static str),
    /// No URL.
    #[error("{0}")]
    Syntax(String),
}

/// Why there is no client for a bucket.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The file of certificates.
    #[error("AWS_CA_BUNDLE {path}: {why}")]
    CaBundle {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// An endpoint without TLS that nobody allowed.
    #[error(
        "the endpoint begins with http://: what is recorded would go unencrypted; https:// or AWS_ALLOW_HTTP=true is wanted"
    )]
    Unencrypted,
    /// What the client says of its settings.
    #[error(transparent)]
    Settings(#[from] object_store::Error),
}

impl Place {
    /// Reads `file:///path`, `s3://bucket/prefix`, `az://container/prefix`, `gs://bucket/prefix`, or
    /// the path of a folder.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if !text.contains("://") && !text.starts_with("file:") {
            return Ok(Self::Folder(PathBuf::from(text)));
        }
        let url = Url::parse(text).map_err(|error| UrlError::Syntax(error.to_string()))?;
        if url.scheme() == "file" {
            return url.to_file_path().map(Self::Folder).map_err(|()| UrlError::FileHost);
        }
        let cloud = Cloud::of_scheme(url.scheme())
            .ok_or_else(|| UrlError::Scheme(url.scheme().to_owned()))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UrlError::Credentials(cloud.variables()));
        }
        if let Some(feature) = cloud.feature_missing() {
            return Err(UrlError::NotBuilt { scheme: url.scheme().to_owned(), feature });
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(UrlError::Options(cloud.variables()));
        }
        let name = url.host_str().filter(|host| !host.is_empty()).ok_or(UrlError::NoBucket)?;
        let prefix = Path::from_url_path(url.path());
        let prefix = prefix.map_err(|error| UrlError::Syntax(error.to_string()))?;
        Ok(Self::Bucket(Bucket { cloud, name: name.to_owned(), prefix }))
    }
}

impl Bucket {
    /// A client for the whole bucket; keys begin with [`Self::prefix`]. Credentials, region, endpoint
    /// and the rest come from the environment.
    pub fn connect(&self, retry: RetryConfig) -> Result<Arc<dyn ObjectStore>, ConnectError> {
        match self.cloud {
            Cloud::S3 => {
                let settings = s3::Settings::read(variables(), |path| std::fs::read(path))?;
                let store = settings.builder(&self.name)?.with_retry(retry).build()?;
                Ok(Arc::new(store))
            }
            #[cfg(feature = "azure")]
            Cloud::Azure => {
                let builder = object_store::azure::MicrosoftAzureBuilder::from_env();
                let builder = builder.with_container_name(&self.name).with_retry(retry);
                Ok(Arc::new(builder.build()?))
            }
            #[cfg(feature = "gcs")]
            Cloud::Gcs => {
                let builder = object_store::gcp::GoogleCloudStorageBuilder::from_env();
                let builder = builder.with_bucket_name(&self.name).with_retry(retry);
                Ok(Arc::new(builder.build()?))
            }
            #[cfg(not(all(feature = "azure", feature = "gcs")))]
            cloud => Err(object_store::Error::Generic {
                store: "store",
                source: format!("{cloud:?} is not built in").into(),
            }
            .into()),
        }
    }
}

/// The environment, as far as it is text.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// An error with all its causes: that a certificate is not trusted stands at the end of a long chain.
pub fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        // Some repeat what caused them.
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    without_userinfo(&text)
}

/// A text that quotes URLs, without what stands before their hosts: errors name the endpoint that
/// was set, and that may hold a password.
pub fn without_userinfo(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        clean.push_str(before);
        let authority = after.find(|c: char| "/?# \"".contains(c)).unwrap_or(after.len());
        rest = after[..authority].rfind('@').map_or(after, |user| &after[user + 1..]);
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(cloud: Cloud, name: &str, prefix: &str) -> Place {
        Place::Bucket(Bucket { cloud, name: name.to_owned(), prefix: Path::from(prefix) })
    }

    #[test]
    fn a_place_is_a_folder_or_a_bucket_with_a_prefix() {
        for (text, place) in [
            ("/var/lib/flowtap", Place::Folder("/var/lib/flowtap".into())),
            ("some/folder", Place::Folder("some/folder".into())),
            ("file:///a%20b", Place::Folder("/a b".into())),
            ("s3://bucket", bucket(Cloud::S3, "bucket", "")),
            ("s3://bucket/", bucket(Cloud::S3, "bucket", "")),
            ("s3://bucket/some/prefix/", bucket(Cloud::S3, "bucket", "some/prefix")),
            ("s3a://my.bucket-1/x", bucket(Cloud::S3, "my.bucket-1", "x")),
        ] {
            assert_eq!(Place::parse(text), Ok(place), "{text}");
        }
    }

    #[test]
    fn what_is_no_place_is_told_by_what_is_wrong_with_it() {
        let told: Vec<_> = [
            "ftp://host/x",
            "http://x/y",
            "file://host/x",
            "s3://",
            "s3:///prefix",
            "s3://me:hunter2@bucket/x",
            "s3://me@bucket",
            "s3://bucket/x?secret=hunter2",
            "s3://bucket#hunter2",
            "ht!tp://me:hunter2@x",
        ]
        .map(|text| Place::parse(text).expect_err(text).to_string())
        .into();
        assert_eq!(
            told,
            [
                "unknown scheme \"ftp\"",
                "unknown scheme \"http\"",
                "a file URL names no host: three slashes, then the path",
                "no bucket is named",
                "no bucket is named",
                "credentials come from AWS_* variables, not from the URL",
                "credentials come from AWS_* variables, not from the URL",
                "options do not belong behind ? or #; AWS_* variables are for them",
                "options do not belong behind ? or #; AWS_* variables are for them",
                "relative URL without a base",
            ]
        );
    }

    #[test]
    fn a_store_that_is_not_built_in_says_how_it_would_be() {
        for (text, cloud, feature, built) in [
            ("az://container/x", Cloud::Azure, "azure", cfg!(feature = "azure")),
            ("gs://container/x", Cloud::Gcs, "gcs", cfg!(feature = "gcs")),
        ] {
            match Place::parse(text) {
                Ok(place) => assert!(built && place == bucket(cloud, "container", "x")),
                Err(error) => {
                    assert!(!built);
                    assert!(
                        error.to_string().ends_with(&format!("--features {feature}`")),
                        "{error}"
                    );
                }
            }
        }
    }

    #[cfg(feature = "azure")]
    #[test]
    fn an_azure_container_is_reached_through_an_account() {
        let account = [("account_name", "shop"), ("account_key", "c2VjcmV0")];
        let account = account.map(|(key, value)| (key.parse().expect("a key"), value));
        let builder = object_store::azure::MicrosoftAzureBuilder::new().with_container_name("c");
        let builder = account
            .into_iter()
            .fold(builder, |builder, (key, value)| builder.with_config(key, value));
        assert!(builder.build().expect("built").to_string().contains("shop"));
    }

    #[test]
    fn an_error_is_told_with_the_causes_that_it_does_not_repeat() {
        #[derive(Debug, thiserror::Error)]
        #[error("{text}")]
        struct Link {
            text: &'static str,
            source: Option<Box<Link>>,
        }
        let link = |text, source: Option<Link>| Link { text, source: source.map(Box::new) };
        let certificate = link("certificate not trusted", None);
        let sending = link("sending to https://me:hunter2@s3.test", Some(certificate));
        let put = link("put failed: sending to https://me:hunter2@s3.test", Some(sending));
        assert_eq!(told(&put), "put failed: sending to https://s3.test: certificate not trusted");
    }

    #[test]
    fn passwords_in_endpoints_are_left_out_of_errors() {
        let text = "PUT http://me:p@ss@s3.local:9000/b/k failed, see https://docs/x@y";
        assert_eq!(
            without_userinfo(text),
            "PUT http://s3.local:9000/b/k failed, see https://docs/x@y"
        );
    }
}
