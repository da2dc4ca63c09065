//! Finding and striking processes.

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::lab::parts::Lab;
use crate::lab::process::{freeze_all, is_running, send};
use crate::lab::watch::status_of;
use crate::lab::{DR, GROUP, HOME, wait};
use crate::struck::REACHED_WITHIN;

/// The node that leads and made the run's last claim.
pub async fn holder(lab: &Lab) -> Result<String> {
    wait::until("the leader to hold the run", REACHED_WITHIN, async || {
        let run = lab.newest_run(std::time::Duration::ZERO).await?;
        let (holds, leads) = (run.claims.last().context("no claim")?.node.clone(), lab.leader().await?);
        ensure!(holds == leads, "{leads} leads, {holds} claimed last");
        Ok(holds)
    })
    .await
}

/// A node that does not lead, one or the other by turns.
pub async fn follower(lab: &Lab, turn: usize) -> Result<String> {
    let leader = lab.leader().await?;
    let mut others = lab.nodes.iter().map(|node| &node.name).filter(|name| **name != leader);
    others.nth(turn % 2).cloned().context("no follower")
}

/// Waits until somebody else claimed.
pub async fn taken_over(lab: &Lab, from: &str) -> Result<()> {
    wait::until("somebody to take over", REACHED_WITHIN, async || {
        let run = lab.newest_run(std::time::Duration::ZERO).await?;
        ensure!(run.claims.last().is_some_and(|claim| claim.node != from), "{:?}", run.claims);
        Ok(())
    })
    .await
}

/// Starts a killed node again, or thaws a frozen one.
pub async fn revive(lab: &mut Lab, node: &str) -> Result<()> {
    let Lab { nodes, folder, .. } = lab;
    let node = nodes.iter_mut().find(|it| it.name == node).context("no such node")?;
    if node.part().is_ok() { node.thaw() } else { node.start_again(folder) }
}

/// Waits until the node knows a leader and a quorum.
pub async fn follows(lab: &Lab, node: &str) -> Result<()> {
    let listen = lab.node(node)?.listen;
    wait::until(&format!("{node} to follow"), REACHED_WITHIN, async || {
        let standing = status_of(listen).await?.standing.unwrap_or_default();
        ensure!(standing.has_quorum && !standing.leader.is_empty(), "{standing:?}");
        Ok(())
    })
    .await
}

/// Where a step acts, and as which action.
pub fn effect_of(step: &str) -> Result<(&'static str, &'static str)> {
    match step {
        "fence" => Ok((HOME, "fence")),
        "promote" => Ok((DR, "promote")),
        "services" => Ok((DR, "start-services")),
        _ => anyhow::bail!("no guard carries out {step}"),
    }
}

/// The process that carries out a step, from what it entered as in flight.
fn guard_at_work(lab: &Lab, step: &str) -> Result<(String, u32)> {
    let (site, action) = effect_of(step)?;
    let file = lab.folder.path.join(site).join("guard").join(GROUP).join("in-flight.json");
    let entered: serde_json::Value = watchdog::guard::records::read(&file)?;
    ensure!(entered["what"]["action"] == action, "another action is at work: {entered}");
    let guard = entered["what"]["guard_pid"].as_u64().context("no guard_pid")?;
    Ok((format!("{site}/{action}"), u32::try_from(guard)?))
}

/// Waits until the guard was asked about the step under the newest claim's token: what is at work there has met it.
pub async fn looked_at_anew(lab: &Lab, step: &str) -> Result<()> {
    let (site, action) = effect_of(step)?;
    let log = lab.folder.log(&format!("guard-{site}"));
    wait::until(&format!("the new holder to look at {step}"), REACHED_WITHIN, async || {
        let run = lab.newest_run(std::time::Duration::ZERO).await?;
        let claimed = &run.claims.last().context("no claim")?.token;
        let (epoch, n) = claimed.split_once('.').context("a token without a number")?;
        let words = [format!("\"action\":\"{action}\""), format!("\"token\":{{\"epoch\":{epoch},\"n\":{n}}}")];
        let text = std::fs::read_to_string(&log)?;
        let asked = text.lines().filter_map(|line| line.split_once(" answered: ")).map(|(asked, _)| asked);
        ensure!(
            asked.into_iter().any(|asked| words.iter().all(|word| asked.contains(word))),
            "not under {claimed} yet"
        );
        Ok(())
    })
    .await
}

/// SIGKILL to the guard alone; its command goes on.
pub fn kill_guard(lab: &Lab, step: &str) -> Result<String> {
    let (effect, guard) = guard_at_work(lab, step)?;
    send(guard, Signal::KILL);
    wait::until_blocking("the guard to end", REACHED_WITHIN, || (!is_running(guard)).then_some(()))?;
    Ok(effect)
}

/// SIGSTOP to the guard alone.
pub fn freeze_guard(lab: &Lab, step: &str) -> Result<(String, u32)> {
    let (effect, guard) = guard_at_work(lab, step)?;
    freeze_all(&[guard]);
    Ok((effect, guard))
}
