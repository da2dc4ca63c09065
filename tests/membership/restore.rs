//! `cluster backup|show|restore`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::rig::{GROUP, Rig};

#[test]
fn every_node_is_lost_and_the_backup_is_put_back() {
    let mut rig = Rig::formed(&[]);
    let paused = rig.ctl(&["pause", GROUP, "--reason", "work on the power supply"]);
    assert_eq!(paused.code, 0, "{paused:?}");
    let file = rig.folder.path().join("state.backup");
    let path = file.to_str().unwrap().to_owned();
    let written = rig.ctl(&["cluster", "backup", &path]);
    assert!(written.code == 0 && written.out.contains("written "), "{written:?}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    rig.ctl(&["cluster", "backup", &path]).refused(1, "is there already: name another file, or --replace it");
    let held = rig.json(&["cluster", "show", &path]);
    assert_eq!(
        (&held["cluster"], &held["epoch"], &held["groups"][0]["paused"]),
        (&"demo".into(), &1.into(), &true.into())
    );
    let serving = format!("{GROUP}=hanoi");
    let restore = ["cluster", "restore", &path, "--serving", &serving, "--reason", "all nodes were lost"];
    let yes = [&restore[..], &["--yes", "demo"]].concat();
    rig.ctl(&yes).refused(3, "give the nodes a configuration with epoch = 2 or higher");
    let whole = fs::read(&file).unwrap();
    let damaged = rig.folder.path().join("damaged");
    fs::write(&damaged, &whole[..whole.len() / 2]).unwrap();
    rig.ctl(&["cluster", "show", damaged.to_str().unwrap()]).refused(1, "it is damaged: its end is missing");

    for id in 1..=3 {
        rig.kill(id);
        fs::remove_dir_all(rig.data_dir(id)).unwrap();
    }
    let new = rig.file(&[1, 2, 3], 2);
    for id in 1..=3 {
        rig.start(id, &new);
    }
    rig.until_adopted();
    let status = rig.json(&["status"]);
    let reason = status["groups"][0]["pause"]["reason"].as_str().unwrap();
    assert!(reason.contains("this cluster was formed anew"), "{reason}");
    rig.ctl(&["cluster", "restore", &path, "--reason", "lost", "--yes", "demo"])
        .refused(2, "which region serves shop now, hcmc, hanoi; when the backup was made it was hcmc?");
    let nowhere = format!("{GROUP}=witness");
    rig.ctl(&["cluster", "restore", &path, "--serving", &nowhere, "--dry-run"])
        .refused(2, "cannot be served from witness");
    rig.ctl(&[&restore[..], &["--yes", "dem"]].concat()).refused(2, "but this is about demo; nothing was changed");
    let judged = rig.ctl(&[&restore[..], &["--dry-run"]].concat());
    assert!(judged.code == 0 && judged.out.contains("SERVED THEN") && judged.out.contains("it differs"), "{judged:?}");
    let done = rig.ctl(&yes);
    assert!(done.code == 0 && done.out.contains("demo restored"), "{done:?}");
    rig.ctl(&yes).refused(3, "a backup goes into a new, unused one only");

    // It stands, whoever leads, and after all of them were restarted.
    for id in 1..=3 {
        rig.kill(id);
        rig.start(id, &new);
    }
    rig.until_adopted();
    let status = rig.json(&["status"]);
    let group = &status["groups"][0];
    assert_eq!(
        (&group["token"], &group["serving"]["region"], &group["mode"]),
        (&"2.1".into(), &"hanoi".into(), &"paused".into())
    );
    assert!(group["pause"]["reason"].as_str().unwrap().starts_with("restored from the backup"), "{group}");
    let audit = rig.ctl(&["audit", "--limit", "100"]).out;
    assert!(audit.contains("restore the backup made by operator:linh"), "{audit}");
    let entries = rig.json(&["audit", "--limit", "100"]);
    assert!(entries.to_string().contains("the backup's audit ends with entry "), "{entries:#}");
    // The chain on the disks was begun before the restoration, and goes on behind it.
    for id in 1..=3 {
        let folder = rig.data_dir(id).join("audit");
        rig.until("the restoration in the audit's files", |rig| {
            let mut files = fs::read_dir(&folder).ok()?.flatten().map(|file| fs::read_to_string(file.path()));
            let is_written = files.any(|text| text.is_ok_and(|text| text.contains("restore the backup")));
            (is_written && rig.ctl(&["audit", "verify", folder.to_str()?]).code == 0).then_some(())
        });
    }
}
