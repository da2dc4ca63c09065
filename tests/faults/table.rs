//! The table: who is struck, how, and where in a run. Each row is one run on one lab; its stops are the moments at which
//! somebody is struck, each with all that is held then.

use anyhow::Result;

use crate::lab::trip::Point::{self, After, Before, Inside, Through};
use crate::struck::play_case;

/// Who is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The node that leads and holds the run.
    Leader,
    /// Another node.
    Follower,
    /// The process on the host that carries the action, without the command that it runs.
    Guard,
}

/// How.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// SIGKILL. Nodes are started again once somebody else has taken over.
    Killed,
    /// SIGSTOP, and SIGCONT when others went on without it.
    Frozen,
}

/// Where in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// While it is held there.
    Held(Point),
    /// Its result is in the leader's hand, and no follower is awake to commit it.
    Reporting,
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Who.
    pub who: Who,
    /// How.
    pub what: What,
    /// Where in each step.
    pub at: At,
    /// The steps of each stop.
    pub stops: &'static [&'static [&'static str]],
}

macro_rules! cases {
    ($($(#[$mark:meta])* $name:ident: $who:ident $what:ident $at:expr, $stops:expr;)+) => {$(
        $(#[$mark])*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() -> Result<()> {
            play_case(Case { who: Who::$who, what: What::$what, at: $at, stops: &$stops }).await
        }
    )+};
}

use At::{Held, Reporting};

cases! {
    p6_leaders_killed_before_each_step: Leader Killed Held(Before), [&["fence"], &["dns", "promote"], &["services"], &["verify"]];
    p6_leaders_killed_inside_each_step: Leader Killed Held(Inside), [&["fence"], &["promote"], &["services"]];
    p6_leaders_killed_with_each_effect_through: Leader Killed Held(Through), [&["fence"], &["promote"], &["services"]];
    p6_leaders_killed_after_each_step: Leader Killed Held(After), [&["fence"], &["dns", "promote"], &["services"], &["verify"]];
    p6_leaders_killed_with_each_result_in_hand: Leader Killed Reporting, [&["fence"], &["promote"], &["services"]];
    p6_leader_killed_between_fence_and_promote: Leader Killed Held(Before), [&["fence-look"]];

    p3_leaders_frozen_before_each_step: Leader Frozen Held(Before), [&["fence"], &["dns", "promote"], &["services"], &["verify"]];
    p3_leaders_frozen_inside_each_step: Leader Frozen Held(Inside), [&["fence"], &["promote"], &["services"]];
    p3_leaders_frozen_with_each_effect_through: Leader Frozen Held(Through), [&["fence"], &["promote"], &["services"]];
    p3_leaders_frozen_after_each_step: Leader Frozen Held(After), [&["fence"], &["dns", "promote"], &["services"], &["verify"]];
    p3_leaders_frozen_with_each_result_in_hand: Leader Frozen Reporting, [&["fence"], &["promote"], &["services"]];
    p3_leader_frozen_between_fence_and_promote: Leader Frozen Held(Before), [&["fence-look"]];

    p6_followers_killed_in_each_step: Follower Killed Held(Before), [&["fence"], &["dns", "promote"], &["services"], &["verify"]];
    p6_followers_frozen_in_each_step: Follower Frozen Held(Before), [&["fence"], &["dns", "promote"], &["services"], &["verify"]];

    p6_guards_killed_inside_each_step: Guard Killed Held(Inside), [&["fence"], &["promote"], &["services"]];
    p6_guards_killed_with_each_effect_through: Guard Killed Held(Through), [&["fence"], &["promote"], &["services"]];
    p6_guards_frozen_inside_each_step: Guard Frozen Held(Inside), [&["fence"], &["promote"], &["services"]];
    p6_guards_frozen_with_each_effect_through: Guard Frozen Held(Through), [&["fence"], &["promote"], &["services"]];
}

macro_rules! each_alone {
    ($($group:ident: $who:ident $what:ident $point:ident, $($step:ident)+;)+) => {$(
        mod $group {
            use super::{At, Case, Point, Result, What, Who, play_case};
            $(
                #[ignore = "wide: scripts/faults plays each point by itself"]
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $step() -> Result<()> {
                    let (who, what, at) = (Who::$who, What::$what, At::Held(Point::$point));
                    play_case(Case { who, what, at, stops: &[&[stringify!($step)]] }).await
                }
            )+
        }
    )+};
}

each_alone! {
    alone_leader_killed_before: Leader Killed Before, fence dns promote services verify;
    alone_leader_killed_inside: Leader Killed Inside, fence promote services;
    alone_leader_killed_through: Leader Killed Through, fence promote services;
    alone_leader_killed_after: Leader Killed After, fence dns promote services verify;
    alone_leader_frozen_before: Leader Frozen Before, fence dns promote services verify;
    alone_leader_frozen_inside: Leader Frozen Inside, fence promote services;
    alone_leader_frozen_through: Leader Frozen Through, fence promote services;
    alone_leader_frozen_after: Leader Frozen After, fence dns promote services verify;
    alone_follower_killed_before: Follower Killed Before, fence dns promote services verify;
    alone_follower_frozen_before: Follower Frozen Before, fence dns promote services verify;
    alone_guard_killed_inside: Guard Killed Inside, fence promote services;
    alone_guard_killed_through: Guard Killed Through, fence promote services;
    alone_guard_frozen_inside: Guard Frozen Inside, fence promote services;
    alone_guard_frozen_through: Guard Frozen Through, fence promote services;
}
