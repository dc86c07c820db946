//! TLS over real sockets, with certificates made here.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Certificates in a folder: an authority of its own and one server below it.
pub(crate) struct Pki {
    folder: TempDir,
}

impl Pki {
    pub(crate) fn new(server_name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![server_name.to_owned()]).unwrap();
        let server = params.signed_by(&key, &ca).unwrap();
        write("ca.pem", ca.pem());
        write("server.pem", server.pem());
        write("server.key", key.serialize_pem());
        write("other.key", KeyPair::generate().unwrap().serialize_pem());
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn server(&self) -> CertAndKey {
        CertAndKey { cert: self.path("server.pem"), key: self.path("server.key") }
    }

    pub(crate) fn trusting(&self) -> TapTls {
        TapTls { ca: Some(self.path("ca.pem")), ..TapTls::default() }
    }
}

/// One echo over TLS; what the client got, or why not.
async fn echo(
    server: TlsAcceptor,
    client: TlsConnector,
    name: &str,
) -> std::io::Result<(String, Option<usize>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let serving = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await?;
        let mut stream = server.accept(tcp).await?;
        let shown = stream.get_ref().1.peer_certificates().map(<[_]>::len);
        let mut bytes = [0; 5];
        stream.read_exact(&mut bytes).await?;
        stream.write_all(&bytes).await?;
        stream.shutdown().await?;
        Ok::<_, std::io::Error>(shown)
    });
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut stream = client.connect(name, tcp).await?;
    stream.write_all(b"hello").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok((text, serving.await.unwrap()?))
}

#[tokio::test]
async fn a_given_authority_is_trusted_for_its_names_only() {
    let pki = Pki::new("rabbit.test");
    let server = || acceptor(&pki.server()).unwrap();
    let client = || connector(&pki.trusting()).unwrap();
    assert_eq!(echo(server(), client(), "rabbit.test").await.unwrap().0, "hello");
    let refused = echo(server(), client(), "other.test").await.unwrap_err();
    assert!(refused.to_string().contains("not valid for name"), "{refused}");
}

#[tokio::test]
async fn another_authority_is_not_trusted() {
    let pki = Pki::new("rabbit.test");
    let client = connector(&Pki::new("rabbit.test").trusting()).unwrap();
    let refused = echo(acceptor(&pki.server()).unwrap(), client, "rabbit.test").await.unwrap_err();
    assert!(refused.to_string().contains("invalid peer certificate"), "{refused}");
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_a_broker_that_asks() {
    let pki = Pki::new("rabbit.test");
    let mut roots = RootCertStore::empty();
    roots.add(certificates(&pki.path("ca.pem")).unwrap().swap_remove(0)).unwrap();
    let asking =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .unwrap();
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(asking)
        .with_single_cert(
            certificates(&pki.path("server.pem")).unwrap(),
            private_key(&pki.path("server.key")).unwrap(),
        )
        .unwrap();
    let server = TlsAcceptor::from(Arc::new(config));
    let client = connector(&TapTls { client: Some(pki.server()), ..pki.trusting() }).unwrap();
    let (_, shown) = echo(server, client, "rabbit.test").await.unwrap();
    assert_eq!(shown, Some(1));
}

#[tokio::test]
async fn a_pinned_certificate_is_accepted_whatever_its_names() {
    let pki = Pki::new("rabbit.test");
    let server = || acceptor(&pki.server()).unwrap();
    let client = pinned_connector(&pki.path("server.pem")).unwrap();
    assert_eq!(echo(server(), client, "localhost").await.unwrap().0, "hello");
    let other = pinned_connector(&Pki::new("rabbit.test").path("server.pem")).unwrap();
    assert!(echo(server(), other, "localhost").await.is_err());
}

#[test]
fn files_that_do_not_do_are_named() {
    let pki = Pki::new("rabbit.test");
    let error = |cert: &str, key: &str| {
        let files = CertAndKey { cert: pki.path(cert), key: pki.path(key) };
        let Err(error) = acceptor(&files) else { panic!("{cert} and {key} were taken") };
        error.to_string().replace(&format!("{}/", pki.folder.path().display()), "")
    };
    assert!(error("absent.pem", "server.key").starts_with("certificate absent.pem: No such file"));
    assert!(
        error("server.key", "server.key")
            .starts_with("certificate server.key: holds no certificate"),
    );
    assert!(error("server.pem", "ca.pem").starts_with("private key ca.pem: holds none"));
    assert!(
        error("server.pem", "other.key")
            .starts_with("certificate server.pem and private key other.key: "),
    );
}
