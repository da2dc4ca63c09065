//! Route 53 on loopback: `ministack` answers its API. There is no name server behind it, so a small one of ours (a
//! stand-in for AWS's) answers each question with what the API says at that moment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};
use aws_sdk_route53::Client;
use aws_sdk_route53::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_route53::types::{Change, ChangeAction, ChangeBatch, ResourceRecord, ResourceRecordSet, RrType};
use aws_smithy_http_client::tls;
use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;

use super::folder::Folder;
use super::process::Part;
use super::{HOME, PUBLIC_NAME, ZONE, address_of, wait};

/// An API that does not answer within this is told as a failure.
const LOOK_AT_MOST: Duration = Duration::from_millis(500);

/// The API server and the stand-in name server.
pub struct Route53 {
    /// The API.
    pub endpoint_url: String,
    /// Its address.
    pub api: SocketAddr,
    /// The zone's id.
    pub hosted_zone_id: String,
    /// The stand-in name server.
    pub server: SocketAddr,
    /// A shared credentials file that the API accepts (it checks no signatures).
    pub credentials_file: PathBuf,
    part: Part,
    answering: tokio::task::JoinHandle<()>,
}

impl Route53 {
    /// The zone with the public name pointing home.
    pub async fn start_new(folder: &mut Folder) -> Result<Self> {
        let address = address_of("route53");
        let port = folder.port(&[address])?;
        let program = std::env::var_os("WATCHDOG_LAB_MINISTACK").unwrap_or_else(|| "ministack".into());
        let mut command = Command::new(program);
        command.env("BIND_HOST", address.to_string()).env("GATEWAY_PORT", port.to_string());
        command.current_dir(&folder.path);
        let part =
            Part::start(folder, "route53", command).context("is ministack installed? (pip install ministack)")?;
        let endpoint_url = format!("http://{address}:{port}");
        let client = client(&endpoint_url);
        let zone = wait::until("the Route 53 server to answer", Duration::from_secs(60), async || {
            part.check_running()?;
            Ok(client.create_hosted_zone().name(ZONE).caller_reference("lab").send().await?)
        })
        .await?;
        let id =
            zone.hosted_zone().context("no zone in the answer")?.id().trim_start_matches("/hostedzone/").to_owned();
        upsert(&client, &id, PUBLIC_NAME, &address_of(HOME).to_string()).await?;
        let text = "[default]\naws_access_key_id = lab\naws_secret_access_key = lab\n";
        let credentials_file = folder.write_secret("etc/aws-credentials", text)?;
        let server = SocketAddr::new(address, folder.port(&[address])?);
        let socket = UdpSocket::bind(server).await?;
        let answering = tokio::spawn(answer_for_ever(socket, client, id.clone()));
        let api = SocketAddr::new(address, port);
        Ok(Self { endpoint_url, api, hosted_zone_id: id, server, credentials_file, part, answering })
    }

    /// SIGSTOP: an outage that answers nothing.
    pub fn freeze(&self) {
        self.part.freeze();
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.part.thaw();
    }
}

impl Drop for Route53 {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

/// An SDK client for that endpoint.
pub fn client(endpoint_url: &str) -> Client {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring));
    let config = aws_sdk_route53::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint_url)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("lab", "lab", None, None, "lab"))
        .http_client(http.build_https());
    Client::from_conf(config.build())
}

async fn upsert(client: &Client, zone: &str, name: &str, address: &str) -> Result<()> {
    let value = ResourceRecord::builder().value(address).build()?;
    let set = ResourceRecordSet::builder().name(name).r#type(RrType::A).ttl(300).resource_records(value).build()?;
    let change = Change::builder().action(ChangeAction::Upsert).resource_record_set(set).build()?;
    let batch = ChangeBatch::builder().changes(change).build()?;
    client.change_resource_record_sets().hosted_zone_id(zone).change_batch(batch).send().await?;
    Ok(())
}

/// Answers all questions that wait by one look at the API, so that many askers do not queue up behind each other.
async fn answer_for_ever(socket: UdpSocket, client: Client, zone: String) {
    let mut buffer = [0; 1500];
    loop {
        let mut waiting = Vec::new();
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        waiting.extend(Message::from_vec(&buffer[..length]).ok().map(|question| (question, from)));
        while let Ok((length, from)) = socket.try_recv_from(&mut buffer) {
            waiting.extend(Message::from_vec(&buffer[..length]).ok().map(|question| (question, from)));
        }
        let looked =
            tokio::time::timeout(LOOK_AT_MOST, client.list_resource_record_sets().hosted_zone_id(&zone).send());
        let sets = looked.await.ok().and_then(Result::ok).map(|page| page.resource_record_sets);
        for (question, from) in waiting {
            if let Ok(bytes) = answer(&question, sets.as_deref()).to_vec() {
                let _ = socket.send_to(&bytes, from).await;
            }
        }
    }
}

/// The answer by what the API said, if it said anything.
fn answer(question: &Message, sets: Option<&[ResourceRecordSet]>) -> Message {
    let mut answer = Message::response(question.metadata.id, OpCode::Query);
    answer.metadata.authoritative = true;
    answer.add_queries(question.queries.iter().cloned());
    let Some(query) = question.queries.first() else { return answer };
    let name = query.name().to_ascii();
    match sets {
        Some(sets) => {
            let same = sets.iter().filter(|set| set.name().eq_ignore_ascii_case(&name));
            let wanted = same.filter(|set| set.r#type().as_str() == query.query_type().to_string());
            for set in wanted {
                let ttl = u32::try_from(set.ttl().unwrap_or(1)).unwrap_or(1);
                let values = set.resource_records().iter().map(ResourceRecord::value);
                let datas = values.filter_map(|value| data(query.query_type(), value));
                answer.answers.extend(datas.map(|data| Record::from_rdata(query.name().clone(), ttl, data)));
            }
        }
        None => answer.metadata.response_code = ResponseCode::ServFail,
    }
    answer
}

fn data(kind: RecordType, value: &str) -> Option<RData> {
    match kind {
        RecordType::A => Some(RData::A(A(value.parse().ok()?))),
        RecordType::CNAME => Some(RData::CNAME(CNAME(Name::from_str(value).ok()?))),
        RecordType::TXT => Some(RData::TXT(TXT::new(vec![value.trim_matches('"').to_owned()]))),
        _ => None,
    }
}
