//! The plan's steps and the places they act upon.

use watchdog::domain::ids::{ResourceName, StepId};

/// A step of the model's plan. The derived order is the plan's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    Fence,
    Dns,
    Promote,
    Services,
    Verify,
}

/// In the plan's order.
pub const ALL: [Step; 5] = [Step::Fence, Step::Dns, Step::Promote, Step::Services, Step::Verify];

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
            Step::Dns => "dns",
            Step::Promote => "promote",
            Step::Services => "services",
            Step::Verify => "verify",
        }
    }

    pub fn id(self) -> StepId {
        StepId::from(self.name())
    }

    pub fn of(id: &StepId) -> Option<Step> {
        ALL.into_iter().find(|step| step.name() == id.as_str())
    }

    /// Where it acts; `verify` changes nothing.
    pub fn place(self) -> Option<Place> {
        match self {
            Step::Fence => Some(Place::Old),
            Step::Dns => Some(Place::Zone),
            Step::Promote | Step::Services => Some(Place::New),
            Step::Verify => None,
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
