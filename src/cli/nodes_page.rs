//! What `watchdogctl node` prints.

use super::text::{Page, Span, bad, bold, dim, good, warn};
use super::when::ago;
use crate::proto::{
    ChangeNodesResponse, LayoutLine, ListNodesResponse, NodeConfiguration, NodeInfo, NodeProgress, NodeRole,
    TransferLeadershipResponse,
};

/// How much of a digest is shown.
const DIGEST_CHARS: usize = 8;

/// `node list`.
pub fn list(answer: &ListNodesResponse) -> Page {
    let mut page = Page::default();
    let now_ms = answer.standing.as_ref().map(|standing| standing.at_ms).unwrap_or_default();
    let digest: String = answer.config_digest.chars().take(DIGEST_CHARS).collect();
    let head = ["ID", "NAME", "REGION", "ADDRESS", "ROLE", "REACHED", "BEHIND", "CONFIG", "VERSION", ""];
    let mut rows = vec![head.iter().map(dim).collect::<Vec<Span>>()];
    rows.extend(answer.nodes.iter().map(|node| row(node, now_ms)));
    page.table(0, rows);
    page.gap();
    page.line([dim(format!("configuration in force {digest}"))]);
    layout(&mut page, &answer.layout);
    page
}

fn row(node: &NodeInfo, now_ms: i64) -> Vec<Span> {
    let is_member = matches!(node.role(), NodeRole::Voter | NodeRole::Learner);
    let role = match node.role() {
        NodeRole::Voter if node.is_leader => good("leader"),
        NodeRole::Voter => Span::from("voter"),
        NodeRole::Learner => warn("learner"),
        NodeRole::Gone => dim("gone"),
        NodeRole::Configured => warn("no member"),
        NodeRole::Unspecified => bad("unknown"),
    };
    let reached = match (is_member, node.reachable) {
        (false, _) => dim("-"),
        (true, true) => good("yes"),
        (true, false) => bad("no"),
    };
    let behind = match node.behind_entries {
        Some(0) => Span::from("0"),
        Some(behind) => warn(behind.to_string()),
        None => dim("-"),
    };
    let config = match node.configuration() {
        NodeConfiguration::Same => Span::from("same"),
        NodeConfiguration::Other => warn("OTHER"),
        NodeConfiguration::Unspecified => dim("-"),
    };
    let mut notes: Vec<String> = Vec::new();
    if node.configuration() == NodeConfiguration::Other {
        notes.push("observes and votes, and neither opens nor executes".to_owned());
    }
    if !node.note.is_empty() {
        notes.push(node.note.clone());
    }
    if !node.by.is_empty() {
        notes.push(format!("{}, {}", node.by, ago(node.since_ms, now_ms)));
    }
    let or_dash = |text: &str| if text.is_empty() { dim("-") } else { Span::from(text) };
    vec![
        Span::from(node.id.to_string()),
        if node.is_leader { bold(&node.name) } else { Span::from(node.name.as_str()) },
        or_dash(&node.region),
        or_dash(&node.address),
        role,
        reached,
        behind,
        config,
        or_dash(&node.version),
        dim(notes.join("; ")),
    ]
}

fn layout(page: &mut Page, lines: &[LayoutLine]) {
    for line in lines {
        let text = format!("  {}", line.text);
        page.line([match (line.outside >= line.needed, line.accepted) {
            (true, _) => dim(text),
            (false, true) => warn(text),
            (false, false) => bad(text),
        }]);
    }
}

/// What stands in the way, and the layout before and after.
pub fn judged(answer: &ChangeNodesResponse) -> Page {
    let mut page = Page::default();
    page.line([bold("what stands in the way")]);
    let gate = |gate: &crate::proto::NodeGate| {
        let mark = if gate.open { good("open") } else { bad("CLOSED") };
        vec![mark, Span::from(gate.name.as_str()), if gate.open { dim(&gate.detail) } else { warn(&gate.detail) }]
    };
    page.table(2, answer.gates.iter().map(gate).collect());
    page.gap();
    page.line([bold("voters now    "), Span::from(answer.voters_before.join(", "))]);
    layout(&mut page, &answer.layout_before);
    page.line([bold("voters after  "), Span::from(answer.voters_after.join(", "))]);
    layout(&mut page, &answer.layout_after);
    page
}

/// How far a learner is.
pub fn catching_up(answer: &ChangeNodesResponse) -> String {
    match answer.behind_entries {
        Some(behind) => format!("{} is a learner, {behind} entries behind", answer.node),
        None => format!("{} is a learner, and is being sent the log", answer.node),
    }
}

/// What came of it.
pub fn changed(answer: &ChangeNodesResponse) -> Page {
    let mut page = Page::default();
    let name = bold(&answer.node);
    match answer.progress() {
        NodeProgress::Done if answer.leaving == answer.node => {
            page.line([
                name,
                good(" is gone; "),
                dim("its number is not used again. Stop it, and take it out of the configuration"),
            ]);
        }
        NodeProgress::Done if !answer.leaving.is_empty() => {
            page.line([name, good(format!(" votes in place of {}", answer.leaving))]);
        }
        NodeProgress::Done => page.line([name, good(" votes")]),
        NodeProgress::Learner => {
            page.line([name, good(" is a learner, "), dim("and stays one until it is added again without --learner")])
        }
        _ => page.line([warn(catching_up(answer))]),
    }
    page.line([dim("voters  "), Span::from(answer.voters_after.join(", "))]);
    page
}

/// Who leads now.
pub fn transferred(answer: &TransferLeadershipResponse) -> Page {
    let mut page = Page::default();
    if answer.leader == answer.from {
        page.line([bold(&answer.leader), good(" leads already")]);
    } else {
        page.line([bold(&answer.leader), good(" leads"), dim(format!(", before it {}", answer.from))]);
    }
    if !answer.preferred.is_empty() {
        page.line([warn("it will not stay so: "), warn(&answer.note)]);
    }
    page
}
