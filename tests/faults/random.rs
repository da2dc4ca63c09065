//! Nodes killed and frozen at moments that nobody chose: between a result's commit and the next step's intent, in the
//! middle of an election, while a page is on its way.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use watchdog::proto::RunPhase;

use crate::lab::parts::Lab;
use crate::lab::watch::phase;
use crate::lab::{HOME, wait};
use crate::scene::play;
use crate::strike::{follows, revive};
use crate::struck::{Toll, client_of_the_old_side, living_database};
use crate::upheld::untouched_by_it;

/// More than these are not struck in one run.
const STRIKES_MAX: usize = 4;
/// Between a fault or a revival and the next strike, milliseconds: as long as a run takes by itself, and an election.
const BETWEEN_MS: u64 = 1500;

/// Steele, Lea and Flood's SplitMix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// `FAULTS_SEED`, else the time.
fn seed() -> Result<u64> {
    match std::env::var("FAULTS_SEED") {
        Ok(text) => text.parse().with_context(|| format!("FAULTS_SEED {text:?} is not a number")),
        Err(_) => Ok(u64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_micros())?),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_nodes_struck_at_random_moments() -> Result<()> {
    let seed = seed()?;
    println!("FAULTS_SEED={seed}");
    let mut chance = Chance(seed);
    let played = play(living_database(40), async |lab: &mut Lab| {
        let old = client_of_the_old_side(lab).await?;
        let mut toll = Toll::default();
        lab.services[HOME].kill()?;
        for _ in 0..STRIKES_MAX {
            wait::pause(Duration::from_millis(chance.below(BETWEEN_MS))).await;
            let over = lab.newest_run(Duration::ZERO).await.is_ok_and(|run| phase(&run) == RunPhase::Succeeded);
            if over {
                break;
            }
            // The leader more often than not; while nobody leads, anybody.
            let anybody = lab.nodes[usize::try_from(chance.below(3))?].name.clone();
            let leader = lab.leader().await.unwrap_or_default();
            let victim = if chance.below(4) > 0 && !leader.is_empty() { leader } else { anybody };
            let is_killed = chance.below(2) == 0;
            println!("{} {victim}", if is_killed { "killing" } else { "freezing" });
            toll.holders.push(victim.clone());
            if is_killed {
                lab.node_mut(&victim)?.kill()?
            } else {
                lab.node(&victim)?.freeze()?
            }
            wait::pause(Duration::from_millis(chance.below(4 * BETWEEN_MS))).await;
            revive(lab, &victim).await?;
            follows(lab, &victim).await?;
        }
        let run = lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(90)).await?;
        untouched_by_it(lab, &run, &toll, &old).await
    })
    .await;
    played.with_context(|| format!("FAULTS_SEED={seed}"))
}
