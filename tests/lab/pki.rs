//! The lab's certificates: an authority of its own, one for each node, guard and for the operator, as `watchdogctl cert`
//! makes them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tonic::transport::{Channel, Endpoint};
use watchdog::clock::unix_now;
use watchdog::domain::identity::Kind;
use watchdog::tls::authority::{Ask, init, issue};
use watchdog::tls::material::Use;
use watchdog::tls::{Dialer, Expect, Files, Material};

use super::folder::Folder;
use super::nodes::name_at;
use super::{CLUSTER, DR, HOME, WITNESS};

/// Who the lab is to its nodes.
pub const OPERATOR: &str = "lab";

/// Several labs may run in one process: each node is known by where it listens.
static OPERATORS: Mutex<BTreeMap<SocketAddr, Arc<Material>>> = Mutex::new(BTreeMap::new());

/// Makes all certificates in `tls/` of the lab's folder; the operator's is taken for the nodes at these addresses.
pub fn make(folder: &Folder, nodes: &[SocketAddr]) -> Result<()> {
    let dir = folder.path.join("tls");
    init(&dir, CLUSTER, 100, unix_now())?;
    let sites = [HOME, DR, WITNESS].map(name_at);
    let hosts = [HOME, DR].map(|site| format!("db-{site}"));
    let nodes_and_guards =
        sites.iter().map(|name| (Kind::Node, name)).chain(hosts.iter().map(|name| (Kind::Guard, name)));
    for (kind, name) in nodes_and_guards {
        issue(&dir, &Ask { kind, name, hosts: &[], days: 90, renew: false }, unix_now())?;
    }
    let ask = Ask { kind: Kind::User, name: OPERATOR, hosts: &[], days: 90, renew: false };
    let operator = Material::open(issue(&dir, &ask, unix_now())?.files, Use::Call)?;
    let mut operators = OPERATORS.lock().unwrap_or_else(PoisonError::into_inner);
    operators.extend(nodes.iter().map(|listen| (*listen, operator.clone())));
    Ok(())
}

/// `[tls]` and the operator's role, for the nodes' configuration.
pub fn config(folder: &Folder) -> String {
    let dir = folder.path.join("tls");
    let dir = dir.display();
    format!(
        "[tls]\nca = \"{dir}/ca.pem\"\ncertificate = \"{dir}/node-{{node}}.pem\"\nkey = \"{dir}/node-{{node}}.key\"\n\n\
         [[role]]\nidentity = \"watchdog://{CLUSTER}/user/{OPERATOR}\"\nrole = \"admin\"\n\n"
    )
}

/// `tls = …`, for the configuration of a host's guard.
pub fn guard(folder: &Folder, host: &str) -> String {
    let dir = folder.path.join("tls");
    let dir = dir.display();
    format!(
        "tls = {{ ca = \"{dir}/ca.pem\", certificate = \"{dir}/guard-{host}.pem\", key = \"{dir}/guard-{host}.key\" }}\n"
    )
}

fn operator(listen: SocketAddr) -> Result<Arc<Material>> {
    let operators = OPERATORS.lock().unwrap_or_else(PoisonError::into_inner);
    operators.get(&listen).cloned().with_context(|| format!("no node of a lab listens on {listen}"))
}

/// The operator's files for the node that listens there.
pub fn files(listen: SocketAddr) -> Result<Files> {
    Ok(operator(listen)?.files().clone())
}

/// `watchdogctl` with the operator's certificate, and with nothing of whoever runs the lab.
pub fn with_certificate(command: &mut Command, listen: SocketAddr) -> Result<()> {
    let files = files(listen)?;
    for theirs in ["HOME", "XDG_CONFIG_HOME", "WATCHDOG_CTL_CONFIG", "WATCHDOG_CONTEXT", "WATCHDOG_ENDPOINTS"] {
        command.env_remove(theirs);
    }
    command.env("WATCHDOG_CA", files.ca).env("WATCHDOG_CERTIFICATE", files.certificate).env("WATCHDOG_KEY", files.key);
    Ok(())
}

/// A connection to a node, as the operator.
pub async fn connect(listen: SocketAddr, patience: Duration) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{listen}"))?.connect_timeout(patience).timeout(patience);
    let cluster = CLUSTER.into();
    let connector = Dialer::Tls(operator(listen)?).to(Expect::node(Some(&cluster), None));
    Ok(endpoint.connect_with_connector(connector).await?)
}
