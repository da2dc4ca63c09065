//! A node under a service manager: it says when it is ready, how it stands, that it lives, and that it ends.

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::lab::parts::Lab;
use crate::lab::wait;
use crate::scene::{fast, play};

/// Stands in for systemd: the socket that it would listen on.
struct StandInManager {
    socket: UnixDatagram,
    heard: BTreeSet<String>,
}

impl StandInManager {
    fn hear(&mut self) -> Result<&BTreeSet<String>> {
        let mut buffer = [0; 4096];
        while let Ok(len) = self.socket.recv(&mut buffer) {
            self.heard.extend(std::str::from_utf8(&buffer[..len])?.lines().map(str::to_owned));
        }
        Ok(&self.heard)
    }

    async fn until(&mut self, what: &str, says: impl Fn(&str) -> bool) -> Result<()> {
        wait::until(&format!("the node to say {what}"), Duration::from_secs(20), async || {
            let heard = self.hear()?;
            ensure!(heard.iter().any(|line| says(line)), "it said {heard:?}");
            Ok(())
        })
        .await
    }
}

async fn tells_its_manager(lab: &mut Lab) -> Result<()> {
    let path = lab.folder.path.join("notify");
    let socket = UnixDatagram::bind(&path)?;
    socket.set_nonblocking(true)?;
    let mut manager = StandInManager { socket, heard: BTreeSet::new() };
    let Lab { nodes, folder, .. } = lab;
    let node = &mut nodes[0];
    node.kill()?;
    node.environment.insert("NOTIFY_SOCKET".to_owned(), path.display().to_string());
    node.environment.insert("WATCHDOG_USEC".to_owned(), "3000000".to_owned());
    node.start_again(folder)?;
    manager.until("that it is ready", |line| line == "READY=1").await?;
    let name = node.name.clone();
    manager
        .until("whom it follows", |line| {
            line.starts_with(&format!("STATUS={name} follows ")) || line.starts_with(&format!("STATUS={name} leads "))
        })
        .await?;
    manager.until("that it lives", |line| line == "WATCHDOG=1").await?;
    node.stop()?;
    manager.until("that it stops", |line| line == "STOPPING=1").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_tells_its_service_manager_how_it_stands() -> Result<()> {
    play(fast(), tells_its_manager).await
}
