//! A node's disk fills up, or what lies on it is damaged, gone, or from yesterday. The node says which file it is and takes
//! no part; the other two go on.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use watchdog::consensus::{MARK_FILE, STORE_FILE};
use watchdog::proto::RunPhase;

use crate::calm::{at_rest, standing};
use crate::lab::nodes::name_at;
use crate::lab::parts::Lab;
use crate::lab::process::{run, tail};
use crate::lab::{DR, GROUP, HOME, WITNESS, wait};
use crate::scene::{each_effect_once, fast, nothing_happened, play, play_prepared};

/// Where a node keeps what it must not forget.
fn data_dir(lab: &Lab, node: &str) -> PathBuf {
    lab.folder.path.join("nodes").join(node)
}

/// A small disk; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, size: &str) -> Result<Self> {
        fs::create_dir_all(at)?;
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size},mode=0700"), "lab"]).arg(at))?;
        Ok(Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a node that failed the test may still have its files open.
        let _ = run(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}

/// Waits for the node's process to end by itself, with a failure and these words in its log.
async fn ends_saying(lab: &Lab, node: &str, words: &[&str]) -> Result<()> {
    let part = lab.node(node)?.part()?;
    wait::until(&format!("{node} to end"), Duration::from_secs(30), async || {
        part.ended().with_context(|| format!("its log ends with:\n{}", tail(&part.log)))
    })
    .await?;
    let end = tail(&part.log);
    let failed = part.ended().is_some_and(|status| !status.success());
    ensure!(failed && words.iter().all(|word| end.contains(word)), "{node} did not say {words:?}:\n{end}");
    Ok(())
}

/// Starts the node and waits until it refuses to run, with these words.
async fn refuses_to_start(lab: &mut Lab, node: &str, words: &[&str]) -> Result<()> {
    let Lab { nodes, folder, .. } = &mut *lab;
    let found = nodes.iter_mut().find(|found| found.name == node).context("a node of that name")?;
    // What earlier processes said does not count.
    fs::write(folder.log(&format!("node-{node}")), "")?;
    found.start_again(folder)?;
    ends_saying(lab, node, words).await
}

fn start_again(lab: &mut Lab, node: &str) -> Result<()> {
    let Lab { nodes, folder, .. } = lab;
    nodes.iter_mut().find(|found| found.name == node).context("a node of that name")?.start_again(folder)
}

/// The leader's disk is full when it is to open a run: it stops and names the file, another opens it, and with room again
/// it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p12_a_leader_whose_disk_is_full_stops_and_another_acts() -> Result<()> {
    let full = name_at(WITNESS);
    let mut disk = None;
    let prepare = async |lab: &mut Lab| {
        disk = SmallDisk::mount(&data_dir(lab, &full), "8m").map_err(|error| println!("{error:#}")).ok();
        Ok(())
    };
    play_prepared(fast(), prepare, async |lab: &mut Lab| {
        if !run(Command::new("findmnt").arg(data_dir(lab, &full))).is_ok_and(|said| said.contains("tmpfs")) {
            println!("skipped: a small disk cannot be mounted here");
            return Ok(());
        }
        ensure!(lab.leader().await? == full, "{full} does not lead");
        let filler = data_dir(lab, &full).join("filler");
        let file = fs::File::create(&filler)?;
        let mut length = 0;
        for size in [1 << 16, 1 << 10, 1] {
            let room = vec![1; size];
            while file.write_at(&room, length).is_ok_and(|written| written == size) {
                length += size as u64;
            }
        }
        lab.kill_home()?;
        // It may have room in pages it holds already: then others fill them.
        let ended = wait::until("the node with the full disk to stop", Duration::from_secs(60), async || {
            let words = ["pause", GROUP, "--reason", "to fill the disk"];
            let _ = lab.node(&name_at(DR))?.ctl(&words).await;
            let _ = lab.node(&name_at(DR))?.ctl(&["resume", GROUP, "--reason", "to fill the disk"]).await;
            lab.node(&full)?.part()?.ended().context("it runs")
        });
        ended.await?;
        ends_saying(lab, &full, &["No space left", "consensus."]).await?;
        let _ = lab.node(&name_at(DR))?.ctl(&["resume", GROUP, "--reason", "it is full"]).await;
        lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(60)).await?;
        each_effect_once(lab)?;

        fs::remove_file(&filler)?;
        start_again(lab, &full)?;
        at_rest(lab, 1).await?;
        each_effect_once(lab)
    })
    .await
}

/// Flips a bit in every record of the store, the vote among them.
fn spoil_records(file: &Path) -> Result<()> {
    let mut bytes = fs::read(file)?;
    let records: Vec<usize> = bytes.windows(4).enumerate().filter(|(_, it)| it == b"WDR1").map(|(at, _)| at).collect();
    ensure!(!records.is_empty(), "no record in {}", file.display());
    for at in records {
        if let Some(byte) = bytes.get_mut(at + 16) {
            *byte ^= 1;
        }
    }
    Ok(fs::write(file, bytes)?)
}

/// Every damage is refused by the file's name, and the other two fail over meanwhile. With what it had, it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p12_a_node_with_damaged_files_refuses_to_start_and_the_others_go_on() -> Result<()> {
    play(fast(), async |lab: &mut Lab| {
        let node = name_at(DR);
        lab.node_mut(&node)?.kill()?;
        let folder = data_dir(lab, &node);
        let (store, mark) = (folder.join(STORE_FILE), folder.join(MARK_FILE));
        let whole = (fs::read(&store)?, fs::read(&mark)?);
        type Damage<'a> = (&'a str, &'a dyn Fn() -> Result<()>, &'a str);
        let damages: [Damage<'_>; 5] = [
            ("a bit in each record", &|| spoil_records(&store), STORE_FILE),
            (
                "cut short",
                &|| Ok(fs::OpenOptions::new().write(true).open(&store)?.set_len(whole.0.len() as u64 / 2)?),
                STORE_FILE,
            ),
            ("gone", &|| Ok(fs::remove_file(&store)?), STORE_FILE),
            (
                "the mark damaged",
                &|| Ok(fs::OpenOptions::new().write(true).open(&mark)?.write_all_at(b"x", 30)?),
                MARK_FILE,
            ),
            ("the mark gone", &|| Ok(fs::remove_file(&mark)?), MARK_FILE),
        ];
        for (what, damage, named) in damages {
            damage()?;
            refuses_to_start(lab, &node, &[named]).await.with_context(|| what.to_owned())?;
            fs::write(&store, &whole.0)?;
            fs::write(&mark, &whole.1)?;
        }
        spoil_records(&store)?;
        lab.kill_home()?;
        lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(60)).await?;
        refuses_to_start(lab, &node, &[STORE_FILE]).await?;
        fs::write(&store, &whole.0)?;
        start_again(lab, &node)?;
        at_rest(lab, 1).await?;
        each_effect_once(lab)
    })
    .await
}

/// A voter's folder is emptied, and it starts under the same number while nobody can tell it better. It has forgotten what
/// it voted for, so it counts for nothing: one of three is no majority with it. Asked, its peers name what is wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_an_emptied_voter_does_not_count() -> Result<()> {
    play(fast(), async |lab: &mut Lab| {
        let (empty, other, gone) = (name_at(DR), name_at(HOME), name_at(WITNESS));
        lab.node_mut(&empty)?.kill()?;
        fs::remove_dir_all(data_dir(lab, &empty))?;
        lab.node_mut(&gone)?.kill()?;
        lab.node(&other)?.freeze()?;
        start_again(lab, &empty)?;
        wait::until("the emptied node to answer", Duration::from_secs(20), async || {
            let standing = standing(lab.node(&empty)?).await?;
            ensure!(!standing.has_quorum, "alone it has no quorum: {standing:?}");
            Ok(())
        })
        .await?;
        lab.node(&other)?.thaw()?;
        lab.kill_home()?;
        // Several elections long.
        wait::pause(Duration::from_secs(6)).await;
        for node in [&empty, &other] {
            let found = lab.node(node)?;
            if found.is_running() {
                let standing = standing(found).await?;
                ensure!(!standing.has_quorum && standing.leader.is_empty(), "{node} found a majority: {standing:?}");
            }
        }
        nothing_happened(lab)?;
        ensure!(lab.standby.in_recovery().await?, "promoted by one voter and an empty one");
        let log = fs::read_to_string(lab.folder.log(&format!("node-{other}")))?;
        ensure!(log.contains("presents another store than before"), "{other} did not say so");

        // With a second whole one the two act, and the emptied one is told to come under a new number.
        start_again(lab, &gone)?;
        lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(60)).await?;
        each_effect_once(lab)?;
        lab.node_mut(&empty)?.kill()?;
        refuses_to_start(lab, &empty, &["under a new id"]).await?;
        at_rest(lab, 1).await
    })
    .await
}

/// Puts away, or puts back, all that a node keeps.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for file in [STORE_FILE, MARK_FILE] {
        fs::copy(from.join(file), to.join(file)).with_context(|| format!("{file} from {}", from.display()))?;
    }
    Ok(())
}

/// A voter's folder is restored as a whole from an older copy: it agrees with itself. The others know better, also those
/// that were killed since; it ends with what to do, does not start again, and the two fail over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_a_voter_restored_from_an_older_copy_is_refused_and_the_others_go_on() -> Result<()> {
    const WORDS: &[&str] = &[STORE_FILE, "went back in time", "under a new id"];
    play(fast(), async |lab: &mut Lab| {
        let (node, others) = (name_at(DR), [name_at(HOME), name_at(WITNESS)]);
        let (folder, old) = (data_dir(lab, &node), lab.folder.path.join("old"));
        lab.node_mut(&node)?.kill()?;
        copy_folder(&folder, &old)?;
        start_again(lab, &node)?;
        at_rest(lab, 0).await?;
        lab.node(&node)?.ctl(&["pause", GROUP, "--reason", "the copy knows nothing of it"]).await?;
        lab.node(&node)?.ctl(&["resume", GROUP, "--reason", "nor of this"]).await?;
        at_rest(lab, 0).await?;
        // Longer than it takes until what was heard is on the disk.
        wait::pause(Duration::from_secs(3)).await;

        lab.node_mut(&node)?.kill()?;
        copy_folder(&old, &folder)?;
        refuses_to_start(lab, &node, WORDS).await.context("restored")?;
        refuses_to_start(lab, &node, WORDS).await.context("started again")?;
        at_rest(lab, 0).await?;

        for other in &others {
            lab.node_mut(other)?.kill()?;
        }
        for other in &others {
            start_again(lab, other)?;
        }
        at_rest(lab, 0).await?;
        copy_folder(&old, &folder)?;
        refuses_to_start(lab, &node, WORDS).await.context("the others were killed and started since")?;
        lab.kill_home()?;
        lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(60)).await?;
        each_effect_once(lab)?;
        at_rest(lab, 1).await
    })
    .await
}
