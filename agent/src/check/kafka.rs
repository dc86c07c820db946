//! What a Kafka broker says of itself before anybody logs in: ApiVersions always, and Metadata where
//! no login is wanted.

use std::{fmt, io};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::clean;
use crate::config::HostPort;
use crate::tap::kafka::wire::{Fault, Reader, key};

/// More than any broker says here; what claims to be longer is no Kafka.
const MAX_FRAME: usize = 16 * 1024 * 1024;
/// Asked in a version that every broker knows.
const API_VERSIONS: i16 = 0;
/// The oldest version that tells the cluster's id.
const METADATA: i16 = 2;

/// A broker's word on itself and its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Welcome {
    /// Newest version of Produce and of Fetch.
    produce: i16,
    fetch: i16,
    /// `None` where a login is wanted first.
    cluster: Option<Cluster>,
}

/// What Metadata says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cluster {
    id: String,
    /// Ids and addresses, as clients are told.
    pub(super) brokers: Vec<(i32, HostPort)>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum WelcomeError {
    #[error("reached, but it closed the connection: {0}")]
    Closed(#[from] io::Error),
    #[error(
        "reached, but it does not speak Kafka (it answered with other bytes); is TLS on one side \
         only?"
    )]
    NotKafka,
    #[error("reached, but its answer cannot be read: {0}")]
    Malformed(#[from] Fault),
}

/// Asks for versions and, where that is allowed, for the cluster.
pub(super) async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Result<Welcome, WelcomeError> {
    let answer = call(stream, key::API_VERSIONS, API_VERSIONS, 1, &[]).await?;
    let mut welcome = Welcome::default();
    let mut reader = Reader::new(&answer, false);
    reader.i16()?;
    let versions = reader.each(|reader| Ok((reader.i16()?, reader.i16()?, reader.i16()?)))?;
    let mut offers_metadata = false;
    for (api, oldest, newest) in versions {
        match api {
            key::PRODUCE => welcome.produce = newest,
            key::FETCH => welcome.fetch = newest,
            key::METADATA => offers_metadata = (oldest..=newest).contains(&METADATA),
            _ => {}
        }
    }
    if offers_metadata {
        // No topics.
        match call(stream, key::METADATA, METADATA, 2, &[0; 4]).await {
            Ok(answer) => welcome.cluster = Some(cluster(&answer)?),
            Err(WelcomeError::Closed(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(welcome)
}

/// The body of an answer.
async fn call(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    api: i16,
    version: i16,
    correlation: i32,
    body: &[u8],
) -> Result<Vec<u8>, WelcomeError> {
    let client_id = b"flowtap-check";
    let parts = [
        &api.to_be_bytes()[..],
        &version.to_be_bytes(),
        &correlation.to_be_bytes(),
        &(client_id.len() as i16).to_be_bytes(),
        client_id,
        body,
    ];
    let request = parts.concat();
    stream.write_all(&(request.len() as i32).to_be_bytes()).await?;
    stream.write_all(&request).await?;
    stream.flush().await?;
    let length = stream.read_i32().await?;
    let length = usize::try_from(length).ok().filter(|length| (4..=MAX_FRAME).contains(length));
    let mut answer = vec![0; length.ok_or(WelcomeError::NotKafka)?];
    stream.read_exact(&mut answer).await?;
    if answer[..4] != correlation.to_be_bytes() {
        return Err(WelcomeError::NotKafka);
    }
    Ok(answer.split_off(4))
}

fn cluster(answer: &[u8]) -> Result<Cluster, Fault> {
    let mut reader = Reader::new(answer, false);
    let brokers = reader.each(|reader| {
        let id = reader.i32()?;
        let host = clean(reader.text()?);
        let port = u16::try_from(reader.i32()?).unwrap_or_default();
        reader.string()?;
        Ok((id, HostPort { host, port }))
    })?;
    let id = reader.string()?.map(clean).unwrap_or_default();
    Ok(Cluster { id, brokers })
}

impl Welcome {
    /// Which cluster it belongs to, if it says so.
    pub(super) fn cluster_id(&self) -> Option<&str> {
        self.cluster.as_ref().map(|cluster| cluster.id.as_str()).filter(|id| !id.is_empty())
    }

    /// The brokers that clients are told of.
    pub(super) fn brokers(&self) -> &[(i32, HostPort)] {
        self.cluster.as_ref().map_or(&[], |cluster| &cluster.brokers)
    }
}

impl fmt::Display for Welcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kafka with Produce up to {} and Fetch up to {}", self.produce, self.fetch)?;
        match &self.cluster {
            None => f.write_str(", wants a login before it names its cluster"),
            Some(Cluster { id, brokers }) => {
                let count = brokers.len();
                let brokers: Vec<String> =
                    brokers.iter().map(|(id, address)| format!("{id} at {address}")).collect();
                let s = if count == 1 { "" } else { "s" };
                write!(f, ", cluster {id}, {count} broker{s}: {}", brokers.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    /// Answers requests with these bodies in turn, then closes.
    async fn broker(mut stream: DuplexStream, answers: Vec<Vec<u8>>) {
        for answer in answers {
            let length = stream.read_i32().await.unwrap();
            let mut request = vec![0; length as usize];
            stream.read_exact(&mut request).await.unwrap();
            let frame = [&(answer.len() as i32 + 4).to_be_bytes()[..], &request[4..8], &answer];
            stream.write_all(&frame.concat()).await.unwrap();
        }
    }

    async fn asked(answers: Vec<Vec<u8>>) -> String {
        let (mut client, server) = tokio::io::duplex(1024);
        let (found, ()) = tokio::join!(ask(&mut client), broker(server, answers));
        found.map_or_else(|error| error.to_string(), |welcome| welcome.to_string())
    }

    fn versions() -> Vec<u8> {
        let apis = [[0, 3, 13], [1, 4, 18], [3, 0, 13]].concat();
        let apis: Vec<u8> = apis.iter().flat_map(|n: &i16| n.to_be_bytes()).collect();
        [&[0, 0, 0, 0, 0, 3][..], &apis].concat()
    }

    #[tokio::test]
    async fn a_cluster_is_told_with_its_brokers() {
        let broker = [&[0, 0, 0, 1, 0, 3][..], b"k-1", &9092i32.to_be_bytes(), &[0xff; 2]].concat();
        let metadata =
            [&[0, 0, 0, 1][..], &broker, &[0, 2], b"id", &[0, 0, 0, 1, 0, 0, 0, 0]].concat();
        assert_eq!(
            asked(vec![versions(), metadata]).await,
            "Kafka with Produce up to 13 and Fetch up to 18, cluster id, 1 broker: 1 at k-1:9092"
        );
    }

    #[tokio::test]
    async fn a_broker_that_wants_a_login_is_well() {
        assert_eq!(
            asked(vec![versions()]).await,
            "Kafka with Produce up to 13 and Fetch up to 18, wants a login before it names its \
             cluster"
        );
    }

    #[tokio::test]
    async fn other_bytes_are_no_kafka() {
        let (mut client, mut server) = tokio::io::duplex(1024);
        server.write_all(b"HTTP/1.1 400 Bad Request").await.unwrap();
        assert!(ask(&mut client).await.unwrap_err().to_string().contains("does not speak Kafka"));
    }
}
