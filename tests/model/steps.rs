//! The plan's steps and the places they act upon.

use watchdog::domain::ids::{ResourceName, StepId};

/// A step of the model's plan. The derived order is the plan's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    Fence,
    /// Planned moves only.
    CatchUp,
    Dns,
    Promote,
    Services,
    Verify,
    /// A planned move's way back.
    Release,
}

/// In the plan's order.
pub const ALL: [Step; 7] =
    [Step::Fence, Step::CatchUp, Step::Dns, Step::Promote, Step::Services, Step::Verify, Step::Release];
/// A failover's, whole.
pub const FAILOVER: [Step; 5] = [Step::Fence, Step::Dns, Step::Promote, Step::Services, Step::Verify];
/// A planned move's, as far as writing is concerned.
pub const PLANNED: [Step; 4] = [Step::Fence, Step::CatchUp, Step::Promote, Step::Release];

/// A thing that keeps a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The old primary's host.
    Old,
    /// The standby's host.
    New,
    /// The zone.
    Zone,
}

impl Step {
    pub fn name(self) -> &'static str {
        match self {
            Step::Fence => "fence",
            Step::CatchUp => "catch-up",
            Step::Dns => "dns",
            Step::Promote => "promote",
            Step::Services => "services",
            Step::Verify => "verify",
            Step::Release => "release",
        }
    }

    pub fn id(self) -> StepId {
        StepId::from(self.name())
    }

    pub fn of(id: &StepId) -> Option<Step> {
        ALL.into_iter().find(|step| step.name() == id.as_str())
    }

    /// May be done again, and changes nothing.
    pub fn is_look(self) -> bool {
        matches!(self, Step::CatchUp | Step::Verify)
    }

    /// Where it acts; `catch-up` and `verify` change nothing.
    pub fn place(self) -> Option<Place> {
        match self {
            Step::Fence | Step::Release => Some(Place::Old),
            Step::Dns => Some(Place::Zone),
            Step::Promote | Step::Services => Some(Place::New),
            Step::CatchUp | Step::Verify => None,
        }
    }
}

impl Place {
    pub fn resource(self) -> ResourceName {
        ResourceName::from(match self {
            Place::Old => "host:db-hcmc",
            Place::New => "host:db-hanoi",
            Place::Zone => "zone:zone/_t.shop.test.",
        })
    }

    pub fn of(name: &ResourceName) -> Option<Place> {
        [Place::Old, Place::New, Place::Zone].into_iter().find(|place| &place.resource() == name)
    }
}
