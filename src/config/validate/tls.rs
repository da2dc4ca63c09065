//! `[tls]` and `[[role]]`: how the nodes' gRPC ports are kept, and for whom.

use std::net::SocketAddr;

use crate::config::check::Item;
use crate::config::raw::{RawNode, RawRole, RawTls};
use crate::config::types::TlsConfig;
use crate::domain::identity::{Grant, Identity, Role};

use super::Judge;
use super::fields::cut;

/// A role's word, without whose it is.
#[derive(Clone, Copy)]
enum Word {
    Person(Role),
    Node,
    Guard,
}

impl Judge<'_> {
    /// Certificates, or the one word that says that there are none.
    pub(super) fn tls(&mut self, item: &Item<RawTls>, nodes: &[Item<RawNode>]) -> Option<TlsConfig> {
        let Item { place, value } = item;
        let is_empty = value.ca.is_none() && value.certificate.is_none() && value.key.is_none();
        if let Some(word) = &value.plaintext {
            if word != "loopback" {
                let what = format!("{:?} is not a choice here", cut(word));
                let todo = "write plaintext = \"loopback\", or name ca, certificate and key instead";
                self.report.error(place, "plaintext", what, todo);
                return None;
            }
            if !is_empty {
                let what = "plain text and certificates at once";
                self.report.error(place, "plaintext", what, "remove it, or ca, certificate and key");
                return None;
            }
            for node in nodes {
                self.on_loopback(node);
            }
            let what = "no certificates: whoever has a login on this machine may do everything, under any name";
            self.report.warn(
                place,
                "plaintext",
                what,
                "for trying it out only; elsewhere name ca, certificate and key",
            );
            return Some(TlsConfig::PlaintextOnLoopback);
        }
        if is_empty && place.faulty.is_empty() {
            let what = "[tls] names no certificates";
            let todo = "name ca, certificate and key (`watchdogctl cert init` and `cert issue` make them); on one machine, \
                        to try it out, plaintext = \"loopback\"";
            self.report.error(place, "", what, todo);
            return None;
        }
        for (key, value) in [("ca", &value.ca), ("certificate", &value.certificate), ("key", &value.key)] {
            self.required(place, key, value);
        }
        let ca = self.file(place, "ca", &value.ca, false);
        let certificate = self.file(place, "certificate", &value.certificate, false);
        let key = self.file(place, "key", &value.key, true);
        Some(TlsConfig::Files { ca: ca?, certificate: certificate?, key: key? })
    }

    /// Plain text does not leave the machine.
    fn on_loopback(&mut self, node: &Item<RawNode>) {
        let Item { place, value } = node;
        for (key, text) in [("listen", &value.listen), ("address", &value.address)] {
            let Some(text) = text else { continue };
            let is_loopback = match text.parse::<SocketAddr>() {
                Ok(address) => address.ip().is_loopback(),
                // No address to listen on: told elsewhere. A name may lead anywhere.
                Err(_) => key == "listen" || text.starts_with("localhost:"),
            };
            if !is_loopback {
                let what = format!("{:?} is not on loopback, and tls.plaintext is for loopback only", cut(text));
                self.report.error(place, key, what, "name tls.ca, tls.certificate and tls.key instead");
            }
        }
    }

    /// Who may do what.
    pub(super) fn roles(&mut self, items: &[Item<RawRole>], tls: Option<&TlsConfig>) -> Vec<(Identity, Grant)> {
        let mut roles = Vec::new();
        for item in items {
            roles.extend(self.role(item));
        }
        if let (Some(TlsConfig::Files { .. }), true) = (tls, items.is_empty()) {
            let what = "nobody may look or act: no [[role]]";
            let todo = "add [[role]] with identity = \"watchdog://CLUSTER/user/NAME\" and role = \"admin\"";
            self.report.warn(&Default::default(), "role", what, todo);
        }
        roles
    }

    fn role(&mut self, item: &Item<RawRole>) -> Option<(Identity, Grant)> {
        let Item { place, value } = item;
        let identity = self.required(place, "identity", &value.identity).map(|text| Identity::parse(&text));
        if let Some(Err(why)) = &identity {
            let todo = "write it as the certificate does: `watchdogctl cert show FILE` tells";
            self.report.error(place, "identity", why.clone(), todo);
        }
        let words = [
            ("viewer", Word::Person(Role::Viewer)),
            ("operator", Word::Person(Role::Operator)),
            ("admin", Word::Person(Role::Admin)),
            ("node", Word::Node),
            ("guard", Word::Guard),
        ];
        let (nodes, hosts) = (self.known.nodes.clone(), self.known.hosts.clone());
        let grant = match self.choice(place, "role", &value.role, None, &words)? {
            Word::Person(role) => {
                self.only(place, role.word(), &["identity", "role"], &[]);
                Grant::Person(role)
            }
            Word::Node => Grant::Node(self.refers(place, "name", &value.name, &nodes, "node")?.as_str().into()),
            Word::Guard => Grant::Guard(self.refers(place, "name", &value.name, &hosts, "host")?.as_str().into()),
        };
        Some((identity?.ok()?, grant))
    }
}
