//! `flowtap serve`: the HTTP API and the page, from one store.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::telemetry::Telemetry;
use super::{FAILED, StoreArg, USAGE, complain, runtime};
use crate::answer::Answers;
use crate::api::{Options, Server, TlsFiles};
use crate::find::Catalog;
use crate::ingest::Ingester;
use crate::store::Store;

/// Time between two looks at the inbox, for the table.
const EVERY: Duration = Duration::from_secs(30);

/// Serve the HTTP API and the page
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    from: StoreArg,

    /// Where to listen. Off loopback it wants --token-file and TLS, or --insecure
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: String,

    /// A file with a token of 16 characters or more that everybody who asks must give
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Certificate chain, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// Its key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Listen off loopback without token or TLS: everybody who gets there reads everything
    #[arg(long)]
    insecure: bool,

    /// Another name that the server is asked by; may be repeated
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,

    /// After so long something that is missing is called late
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = super::sql::duration)]
    late_after: Duration,

    /// Memory for the index of what is newest; rows that have no place in it are found by their ids in
    /// the store's directories
    #[arg(long, value_name = "BYTES", default_value = "1GiB", value_parser = super::tidy::bytes)]
    index_bytes: u64,

    /// Leave the table `history` as it is: somebody else runs `flowtap ingest`
    #[arg(long, conflicts_with_all = ["grace", "keep", "keep_bytes"])]
    no_ingest: bool,

    #[command(flatten)]
    ingest: super::ingest::IngestArgs,
}

pub(super) fn run(args: Args) -> ExitCode {
    match runtime() {
        Ok(runtime) => runtime.block_on(serve(args)),
        Err(error) => complain(FAILED, &error),
    }
}

async fn serve(args: Args) -> ExitCode {
    let telemetry = Telemetry::start();
    let code = match prepare(&args).await {
        Ok((server, ingester)) => {
            let ingesting = ingester.map(|ingester| tokio::spawn(ingest(ingester)));
            let code = listen(server, &args).await;
            // It may be stopped anywhere.
            ingesting.inspect(tokio::task::JoinHandle::abort);
            code
        }
        Err((code, message)) => complain(code, &message),
    };
    telemetry.shutdown().await;
    code
}

/// Keeps the table up, beside the server. A store that is not fit for it can still be read.
async fn ingest(ingester: Ingester) {
    let Err(error) = ingester.run(EVERY).await;
    tracing::error!(%error, "the history stays in the inbox");
}

async fn prepare(args: &Args) -> Result<(Server, Option<Ingester>), (u8, String)> {
    let usage = |message: String| (USAGE, message);
    let addresses: Vec<SocketAddr> = args
        .listen
        .to_socket_addrs()
        .map_err(|error| usage(format!("--listen {}: {error}; want HOST:PORT", args.listen)))?
        .collect();
    let loopback = addresses.iter().all(|address| address.ip().is_loopback());
    let safe = args.token_file.is_some() && args.tls_cert.is_some();
    if !loopback && !safe && !args.insecure {
        return Err(usage(format!(
            "--listen {} can be reached from other machines: give --token-file, --tls-cert and \
             --tls-key, or --insecure",
            args.listen
        )));
    }
    let token = args.token_file.as_deref().map(read_token).transpose().map_err(usage)?;
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(cert), Some(key)) => Some(TlsFiles { cert: cert.clone(), key: key.clone() }),
        _ => None,
    };
    let store = Store::open(&args.from.store)
        .map_err(|error| (if error.is_usage() { USAGE } else { FAILED }, error.to_string()))?;
    let ingester = (!args.no_ingest).then(|| Ingester::new(store.clone(), args.ingest.options()));
    let counts = ingester.as_ref().map(Ingester::counts).unwrap_or_default();
    let room = usize::try_from(args.index_bytes).unwrap_or(usize::MAX);
    let catalog = Arc::new(Catalog::new(store).with_room(room));
    let answers = Answers::new(catalog).with_patience(args.late_after);
    let listener = TcpListener::bind(addresses.as_slice())
        .await
        .map_err(|error| (FAILED, format!("--listen {} cannot be bound: {error}", args.listen)))?;
    let mut hosts = args.host.clone();
    hosts.extend(args.listen.rsplit_once(':').map(|(host, _)| host.to_owned()));
    let options = Options { hosts, token, tls, ingest: counts };
    Ok((Server::new(listener, answers, options).map_err(usage)?, ingester))
}

async fn listen(server: Server, args: &Args) -> ExitCode {
    let Ok(address) = server.local_addr() else { return complain(FAILED, &"no address") };
    let scheme = if args.tls_cert.is_some() { "https" } else { "http" };
    tracing::info!(url = %format!("{scheme}://{address}"), store = args.from.store, "flowtap serves");
    match server.serve(ended()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(FAILED, &error),
    }
}

/// Comes with SIGTERM or SIGINT.
pub(super) async fn ended() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // Open requests may finish; one that streams for ever does not hold up the end.
    tokio::spawn(async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        std::process::exit(0);
    });
}

pub(super) fn read_token(path: &Path) -> Result<String, String> {
    let wrong = |why: &str| {
        format!(
            "--token-file {}: {why}; want a file with the token alone, 16 characters or more",
            path.display()
        )
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error.to_string()))?;
    let token = text.trim();
    if token.len() < 16 {
        return Err(wrong("is too short"));
    }
    Ok(token.to_owned())
}
