//! DNS questions, answered by the host's own resolver.
//!
//! Names and addresses are asked of the C library ([`system`]), so that `/etc/hosts`,
//! search domains and whatever else the host looks at count; it knows no times to
//! live, so those are short. Other questions go to the host's name servers
//! ([`servers`]) as they are.

mod message;
mod servers;
mod system;

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    sync::LazyLock,
};

use guest_protocol::{
    datagrams::{DatagramReader, DatagramWriter},
    egress::{HOST, HOST_V6, MAX_DNS_MESSAGE},
};
use tokio::{net::UnixStream, sync::Semaphore};

use super::accept;
use message::{Code, Question, Record, RecordType};
use system::Lookup;

/// Threads that wait for the C library at once.
const MOST_LOOKUPS: usize = 64;

static LOOKUPS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(MOST_LOOKUPS));

/// Answers one question.
pub(super) async fn serve(mut stream: UnixStream) -> io::Result<()> {
    accept(&mut stream).await?;
    let (reader, writer) = stream.split();
    let mut reader = DatagramReader::new(reader);
    let Some(question) = reader.next().await? else {
        return Ok(());
    };
    let Some(answer) = answer(question).await else {
        // Not even a header: nobody to answer.
        return Ok(());
    };
    let answer = answer.get(..MAX_DNS_MESSAGE).unwrap_or(&answer);
    DatagramWriter::new(writer).write(answer).await
}

async fn answer(bytes: &[u8]) -> Option<Vec<u8>> {
    let question = match Question::parse(bytes) {
        Ok(question) => question,
        Err(header) => return header.map(|header| header.refuse(Code::FormatError)),
    };
    let answer = match question.record_type() {
        Some(RecordType::Address(ipv6)) => match question.name() {
            Some(name) => addresses(name, ipv6).await,
            None => Ok(Vec::new()),
        },
        Some(RecordType::Pointer(address)) => names(address).await,
        None => {
            return Some(match servers::ask(bytes).await {
                Ok(answer) => answer,
                Err(error) => {
                    tracing::debug!(%error, "the host's name servers do not answer");
                    question.answer(Err(Code::ServerFailure))
                }
            });
        }
    };
    Some(question.answer(answer))
}

async fn look_up<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Code> {
    // Never closed.
    let _slot = LOOKUPS.acquire().await.map_err(|_| Code::ServerFailure)?;
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Code::ServerFailure)
}

/// Addresses of a name.
async fn addresses(name: String, ipv6: bool) -> Result<Vec<Record>, Code> {
    let found = look_up(move || match system::addresses(&name, Some(ipv6)) {
        // Is it the name or the family that there is none of?
        Lookup::Nothing => match system::addresses(&name, None) {
            Lookup::Found(_) => Lookup::Found(Vec::new()),
            other => other,
        },
        other => other,
    });
    match found.await? {
        Lookup::Found(addresses) => {
            let mut records: Vec<Record> = Vec::new();
            for address in addresses {
                let record = Record::Address(seen_from_containers(address));
                if address.is_ipv6() == ipv6 && !records.contains(&record) {
                    records.push(record);
                }
            }
            Ok(records)
        }
        Lookup::Nothing => Err(Code::NoSuchName),
        Lookup::Failed => Err(Code::ServerFailure),
    }
}

/// Names of an address.
async fn names(address: IpAddr) -> Result<Vec<Record>, Code> {
    match look_up(move || system::name_of(address)).await? {
        Lookup::Found(name) => Ok(vec![Record::Pointer(name)]),
        Lookup::Nothing => Err(Code::NoSuchName),
        Lookup::Failed => Err(Code::ServerFailure),
    }
}

/// A name that is the host itself there is the host here, too.
fn seen_from_containers(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) if address.is_loopback() || address == Ipv4Addr::UNSPECIFIED => {
            HOST.into()
        }
        IpAddr::V6(address) if address.is_loopback() => HOST_V6.into(),
        address => address,
    }
}
