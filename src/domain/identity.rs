//! Who calls: the identity that a certificate carries, and the roles that the configuration gives it.
//!
//! Ours are `watchdog://CLUSTER/node/NAME`, `…/user/NAME` and `…/guard/HOST`. A certificate of another authority may carry
//! any other URI, or nothing but its common name, written `CN=NAME`.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::ids::{ClusterName, HostName, NodeName, Principal};

/// Before our own identities.
const SCHEME: &str = "watchdog://";
/// Before a common name.
const COMMON_NAME: &str = "CN=";
/// No identity is longer, bytes: it goes into the audit.
const BYTES_MAX: usize = 256;

/// What one of our own identities is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Kind {
    /// A node.
    Node,
    /// A person, or a program of theirs.
    User,
    /// The guard of a host.
    Guard,
}

impl Kind {
    /// Its word in an identity.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Node => "node",
            Kind::User => "user",
            Kind::Guard => "guard",
        }
    }
}

/// An identity as its certificate writes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Identity(String);

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name within an identity: it becomes part of a URI and of file names.
pub fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.len() <= 63 && name.chars().all(plain)
}

impl Identity {
    /// One of our own. The names are taken as they are: see [`is_name`].
    pub fn own(cluster: &ClusterName, kind: Kind, name: &str) -> Self {
        Self(format!("{SCHEME}{cluster}/{}/{name}", kind.word()))
    }

    /// Of a certificate that carries no URI.
    ///
    /// # Errors
    /// What is wrong with the name.
    pub fn common_name(name: &str) -> Result<Self, String> {
        Self::parse(&format!("{COMMON_NAME}{name}"))
    }

    /// A URI, or `CN=NAME`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > BYTES_MAX {
            return Err(format!("an identity of {} bytes is longer than {BYTES_MAX}", text.len()));
        }
        if text.chars().any(char::is_control) {
            return Err(format!("{text:?} has control characters"));
        }
        let identity = Self(text.to_owned());
        if let Some(name) = text.strip_prefix(COMMON_NAME) {
            return if name.trim().is_empty() { Err("the common name is empty".to_owned()) } else { Ok(identity) };
        }
        if text.starts_with(SCHEME) && identity.parts().is_none() {
            let kinds = "watchdog://CLUSTER/node/NAME, watchdog://CLUSTER/user/NAME or watchdog://CLUSTER/guard/HOST";
            return Err(format!("{text:?} is none of {kinds}"));
        }
        let scheme = text.split_once("://").filter(|(scheme, rest)| {
            !scheme.is_empty() && !rest.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+')
        });
        match scheme {
            Some(_) if !text.chars().any(char::is_whitespace) => Ok(identity),
            _ => Err(format!("{text:?} is neither a URI (watchdog://CLUSTER/user/NAME) nor CN=NAME")),
        }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Cluster, kind and name, of our own.
    pub fn parts(&self) -> Option<(&str, Kind, &str)> {
        let mut words = self.0.strip_prefix(SCHEME)?.split('/');
        let (cluster, kind, name) = (words.next()?, words.next()?, words.next()?);
        let kind = [Kind::Node, Kind::User, Kind::Guard].into_iter().find(|known| known.word() == kind)?;
        (words.next().is_none() && is_name(cluster) && is_name(name)).then_some((cluster, kind, name))
    }

    /// The common name, where the certificate carries nothing better.
    pub fn plain_name(&self) -> Option<&str> {
        self.0.strip_prefix(COMMON_NAME)
    }

    /// Short within its own cluster (`user:linh`), else whole.
    pub fn principal(&self, cluster: &ClusterName) -> Principal {
        match self.parts() {
            Some((of, kind, name)) if of == cluster.as_str() => Principal(format!("{}:{name}", kind.word())),
            _ => Principal(self.0.clone()),
        }
    }
}

/// What a person may do. Each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look at everything (an auditor).
    Viewer,
    /// Pause, fail over, retry, abort.
    Operator,
    /// Also what may cost data: assert a fence, accept a loss, skip a step.
    Admin,
}

impl Role {
    /// Its word in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }
}

/// What the configuration gives an identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grant {
    /// A person's role.
    Person(Role),
    /// It is that node.
    Node(NodeName),
    /// It is the guard of that host.
    Guard(HostName),
}

/// Everything that an identity may be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// A person of that role.
    pub person: Option<Role>,
    /// That node.
    pub node: Option<NodeName>,
    /// The guard of that host.
    pub guard: Option<HostName>,
}

impl Held {
    /// In words: `operator`, `node hcmc-1`, `no role`.
    pub fn in_words(&self) -> String {
        let mut words: Vec<String> = self.person.iter().map(|role| role.word().to_owned()).collect();
        words.extend(self.node.iter().map(|name| format!("node {name}")));
        words.extend(self.guard.iter().map(|host| format!("guard of {host}")));
        if words.is_empty() { "no role".to_owned() } else { words.join(", ") }
    }
}

/// Who holds which role, by the configuration.
#[derive(Debug, Clone)]
pub struct Roles {
    cluster: ClusterName,
    held: BTreeMap<Identity, Held>,
}

impl Roles {
    /// The nodes and the hosts' guards of a cluster are known by their names; `given` is what the file says besides.
    pub fn new<'a>(
        cluster: &ClusterName,
        nodes: impl IntoIterator<Item = &'a NodeName>,
        hosts: impl IntoIterator<Item = &'a HostName>,
        given: impl IntoIterator<Item = &'a (Identity, Grant)>,
    ) -> Self {
        let mut roles = Self { cluster: cluster.clone(), held: BTreeMap::new() };
        for (kind, name, grant) in nodes
            .into_iter()
            .map(|node| (Kind::Node, node.as_str(), Grant::Node(node.clone())))
            .chain(hosts.into_iter().map(|host| (Kind::Guard, host.as_str(), Grant::Guard(host.clone()))))
        {
            roles.give(Identity::own(cluster, kind, name), &grant);
            if let Ok(plain) = Identity::common_name(name) {
                roles.give(plain, &grant);
            }
        }
        for (identity, grant) in given {
            roles.give(identity.clone(), grant);
        }
        roles
    }

    fn give(&mut self, identity: Identity, grant: &Grant) {
        let held = self.held.entry(identity).or_default();
        match grant {
            Grant::Person(role) => held.person = held.person.max(Some(*role)),
            Grant::Node(name) => held.node = Some(name.clone()),
            Grant::Guard(host) => held.guard = Some(host.clone()),
        }
    }

    /// What an identity holds.
    pub fn of(&self, identity: &Identity) -> Held {
        self.held.get(identity).cloned().unwrap_or_default()
    }

    /// The cluster.
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }
}

/// Who makes a call, as far as it is proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Anybody on this machine: plain text on loopback proves nothing, and everything is believed.
    Unproven,
    /// The holder of a certificate's key, or whom a node carries the call for.
    Proven {
        /// Who.
        identity: Identity,
        /// As which.
        held: Held,
    },
}

impl Caller {
    /// The identity, where one is proved.
    pub fn identity(&self) -> Option<&Identity> {
        match self {
            Caller::Unproven => None,
            Caller::Proven { identity, .. } => Some(identity),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_ours_or_another_uri_or_a_common_name() {
        let demo = ClusterName::from("demo");
        for (text, parts, principal) in [
            ("watchdog://demo/user/linh", Some(("demo", Kind::User, "linh")), "user:linh"),
            ("watchdog://demo/node/hcmc-1", Some(("demo", Kind::Node, "hcmc-1")), "node:hcmc-1"),
            ("watchdog://other/user/linh", Some(("other", Kind::User, "linh")), "watchdog://other/user/linh"),
            ("spiffe://corp/linh", None, "spiffe://corp/linh"),
            ("CN=Nguyễn Linh", None, "CN=Nguyễn Linh"),
        ] {
            let identity = Identity::parse(text).unwrap();
            assert_eq!((identity.parts(), identity.principal(&demo).as_str()), (parts, principal));
        }
        for bad in [
            "",
            "linh",
            "CN=",
            "CN= ",
            "CN=a\nb",
            "watchdog://demo/linh",
            "watchdog://demo/root/linh",
            "watchdog://demo/user/linh/x",
            "watchdog://demo/user/",
            "watchdog:///user/linh",
            "watchdog://demo/user/a b",
            "x y://z",
            "://z",
        ] {
            assert!(Identity::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Identity::parse(&format!("CN={}", "x".repeat(300))).is_err());
    }

    #[test]
    fn names_of_the_file_hold_their_roles_and_strangers_none() {
        let demo = ClusterName::from("demo");
        let given = [
            (Identity::parse("watchdog://demo/user/linh").unwrap(), Grant::Person(Role::Admin)),
            (Identity::parse("watchdog://demo/user/linh").unwrap(), Grant::Person(Role::Viewer)),
            (Identity::parse("spiffe://corp/n2").unwrap(), Grant::Node("n2".into())),
        ];
        let roles = Roles::new(&demo, &["n1".into(), "n2".into()], &["db".into()], &given);
        for (identity, words) in [
            ("watchdog://demo/user/linh", "admin"),
            ("watchdog://demo/user/minh", "no role"),
            ("watchdog://demo/user/n1", "no role"),
            ("watchdog://demo/node/n1", "node n1"),
            ("watchdog://demo/node/n3", "no role"),
            ("watchdog://other/node/n1", "no role"),
            ("watchdog://demo/guard/db", "guard of db"),
            ("spiffe://corp/n2", "node n2"),
            ("CN=n1", "node n1"),
            ("CN=linh", "no role"),
        ] {
            assert_eq!(roles.of(&Identity::parse(identity).unwrap()).in_words(), words, "{identity}");
        }
    }
}
