//! Links that can be cut for real. The test runs itself again inside a network namespace of its own, the hub; there each host and
//! each node of a lab has a namespace of its own, joined to the others by a bridge. A rule on that bridge drops what goes from
//! one to another. Clients, the name server and the pagers' receivers are at the hub itself, and reach everybody always.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::boot;
use super::folder::Folder;
use super::nodes::name_at;
use super::process::{Part, run, run_async};
use super::{DR, HOME, WITNESS, address_of, wait};

/// Set inside the hub.
const INSIDE: &str = "WATCHDOG_LAB_HUB";
/// The addresses of everything in it.
pub const NET: &str = "10.77.0.0/24";

/// This process runs inside a hub.
pub fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Where something is, inside.
pub fn address(of: &str) -> IpAddr {
    let last = match of {
        HOME => 11,
        DR => 12,
        "hcmc-1" => 21,
        "hanoi-1" => 22,
        "witness-1" => 23,
        _ => 1,
    };
    IpAddr::V4(Ipv4Addr::new(10, 77, 0, last))
}

/// What is cut when a region is: its database's host and its node.
fn hosts_in(region: &str) -> Vec<String> {
    let node = name_at(region);
    if region == WITNESS { vec![node] } else { vec![region.to_owned(), node] }
}

/// Everybody in one region with everybody in the other.
fn hosts_of_both(one: &str, other: &str) -> Vec<(String, String)> {
    hosts_in(one)
        .into_iter()
        .flat_map(|one| hosts_in(other).into_iter().map(move |other| (one.clone(), other)))
        .collect()
}

/// A direction between one region and the two others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// What it says to them.
    Out,
    /// What they say to it.
    In,
}

/// Who says something to whom, that way.
fn pairs(region: &str, way: Way) -> impl Iterator<Item = (&str, &str)> {
    [HOME, DR, WITNESS].into_iter().filter(move |other| *other != region).map(move |other| match way {
        Way::Out => (region, other),
        Way::In => (other, region),
    })
}

/// Runs this test again inside a hub, and there the body. `name` is the test's own, with its modules. Says so where this machine
/// cannot.
pub async fn alone(name: &str, body: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    if inside() {
        return body().await;
    }
    let mut attempt = Command::new("unshare");
    let bridge = "ip link add hub type bridge && nft add table bridge watchdog_lab";
    attempt.args(["-n", "--", "/bin/sh", "-c", bridge]);
    if let Err(why) = run(&mut attempt) {
        println!("NOT TRIED, this machine has no network namespaces with a bridge: {why:#}");
        return Ok(());
    }
    let mut again = Command::new("unshare");
    again.args(["-n", "--", "/bin/sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""]).arg(std::env::current_exe()?);
    again.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
    let said = run_async(again).await.with_context(|| format!("{name}, inside its hub"))?;
    println!("{said}");
    ensure!(said.contains("1 passed"), "no test is called {name}:\n{said}");
    Ok(())
}

/// The bridge and who is joined to it.
pub struct Hub {
    holders: Vec<Part>,
    hosts: Vec<String>,
}

/// One lab after the other may be played inside.
impl Drop for Hub {
    fn drop(&mut self) {
        let mut words: Vec<String> = self.hosts.iter().map(|host| format!("ip link delete to-{host}")).collect();
        words.extend(["ip link delete hub".to_owned(), "nft delete table bridge watchdog_lab".to_owned()]);
        for words in words {
            let words: Vec<&str> = words.split(' ').collect();
            if let Err(why) = run(Command::new(words[0]).args(&words[1..])) {
                eprintln!("left behind: {why:#}");
            }
        }
    }
}

fn holder_file(folder: &Folder, host: &str) -> PathBuf {
    folder.path.join("run").join(format!("net-{host}.pid"))
}

/// The words before a command that put it where the host is: into its namespace, where there is a hub; under its boot id, where it
/// was rebooted.
pub fn words(folder: &Folder, host: &str) -> Vec<String> {
    let holder = fs::read_to_string(holder_file(folder, host));
    let joined = holder.map(|pid| vec!["nsenter".to_owned(), format!("--net=/proc/{pid}/ns/net"), "--".to_owned()]);
    [joined.unwrap_or_default(), boot::words(folder, host)].concat()
}

/// The same command, run at the host.
pub fn at(folder: &Folder, host: &str, command: Command) -> Command {
    let words = words(folder, host);
    let Some((first, rest)) = words.split_first() else { return command };
    let mut inside = Command::new(first);
    inside.args(rest).arg(command.get_program()).args(command.get_args());
    if let Some(dir) = command.get_current_dir() {
        inside.current_dir(dir);
    }
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => inside.env(key, value),
            None => inside.env_remove(key),
        };
    }
    inside
}

impl Hub {
    /// Makes the bridge and joins every host and node of a lab to it.
    pub fn start(folder: &Folder) -> Result<Self> {
        run(Command::new("ip").args(["link", "add", "hub", "type", "bridge"]))?;
        let address = format!("{}/24", address_of("hub"));
        run(Command::new("ip").args(["address", "add", &address, "dev", "hub"]))?;
        run(Command::new("ip").args(["link", "set", "hub", "up"]))?;
        let rules = "table bridge watchdog_lab {\n set cut { type ipv4_addr . ipv4_addr;\n }\n \
                     set passed { type ipv4_addr . ipv4_addr; size 256; flags dynamic;\n }\n chain between {\n \
                     type filter hook forward priority 0;\n ip saddr . ip daddr @cut drop\n \
                     update @passed { ip saddr . ip daddr counter }\n }\n}\n";
        let file = folder.write("etc/hub.nft", rules)?;
        run(Command::new("nft").arg("-f").arg(file))?;
        let mut hub = Self { holders: vec![], hosts: vec![] };
        for host in [HOME, DR, WITNESS].into_iter().flat_map(hosts_in) {
            hub.join(folder, &host)?;
        }
        Ok(hub)
    }

    fn join(&mut self, folder: &Folder, host: &str) -> Result<()> {
        let mut command = Command::new("unshare");
        command.args(["-n", "--", "sleep", "infinity"]);
        let holder = Part::start(folder, &format!("net-{host}"), command)?;
        let ours = fs::read_link("/proc/self/ns/net")?;
        let theirs = PathBuf::from(format!("/proc/{}/ns/net", holder.pid));
        wait::until_blocking("a network namespace", Duration::from_secs(5), || {
            fs::read_link(&theirs).ok().filter(|found| *found != ours)
        })?;
        let (pid, port) = (holder.pid.to_string(), format!("to-{host}"));
        run(Command::new("ip").args(["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &pid]))?;
        run(Command::new("ip").args(["link", "set", &port, "master", "hub", "up"]))?;
        self.hosts.push(host.to_owned());
        fs::write(holder_file(folder, host), &pid)?;
        let address = format!("{}/24", address_of(host));
        for words in [
            &["link", "set", "lo", "up"][..],
            &["address", "add", &address, "dev", "eth0"],
            &["link", "set", "eth0", "up"],
        ] {
            let mut command = Command::new("ip");
            command.args(words);
            run(&mut at(folder, host, command))?;
        }
        self.holders.push(holder);
        Ok(())
    }

    /// Nothing that anybody in region `from` says reaches anybody in region `to` any more.
    pub fn cut_one_way(&self, from: &str, to: &str) -> Result<()> {
        for (one, other) in hosts_of_both(from, to) {
            let pair = format!("{{ {} . {} }}", address_of(&one), address_of(&other));
            run(Command::new("nft").args(["add", "element", "bridge", "watchdog_lab", "cut", &pair]))?;
        }
        Ok(())
    }

    /// Cuts a region off from the two others, both ways.
    pub fn cut_off(&self, region: &str) -> Result<()> {
        self.cut_off_one_way(region, Way::Out)?;
        self.cut_off_one_way(region, Way::In)
    }

    /// Cuts a region off from the two others in one direction only.
    pub fn cut_off_one_way(&self, region: &str, way: Way) -> Result<()> {
        for (from, to) in pairs(region, way) {
            self.cut_one_way(from, to)?;
        }
        Ok(())
    }

    /// How many packets have passed so far between a region and the two others, in one direction.
    pub fn passed(&self, region: &str, way: Way) -> Result<u64> {
        let told = run(Command::new("nft").args(["-j", "list", "set", "bridge", "watchdog_lab", "passed"]))?;
        let told: serde_json::Value = serde_json::from_str(&told)?;
        let sets = told["nftables"].as_array().into_iter().flatten();
        let elements: Vec<_> = sets.filter_map(|it| it["set"]["elem"].as_array()).flatten().collect();
        let mut packets = 0;
        for (from, to) in pairs(region, way) {
            for (one, other) in hosts_of_both(from, to) {
                let pair = serde_json::json!({ "concat": [address_of(&one), address_of(&other)] });
                let its = elements.iter().filter(|it| it["elem"]["val"] == pair);
                packets += its.filter_map(|it| it["elem"]["counter"]["packets"].as_u64()).sum::<u64>();
            }
        }
        Ok(packets)
    }

    /// All links work again.
    pub fn heal(&self) -> Result<()> {
        run(Command::new("nft").args(["flush", "set", "bridge", "watchdog_lab", "cut"])).map(drop)
    }
}
