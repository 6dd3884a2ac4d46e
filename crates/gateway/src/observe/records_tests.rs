use super::*;

#[test]
fn timestamps_of_one_second_share_their_text() {
    let mut second = Second::default();
    for micros in [1_741_486_593_792_720, 1_741_486_593_000_001, 1_741_486_594_000_000] {
        let mut line = Vec::new();
        second.write(Timestamp(micros), &mut line);
        assert_eq!(String::from_utf8(line).expect("text"), Timestamp(micros).to_string());
    }
}

#[test]
fn a_payload_is_cut_and_says_how_long_it_was() {
    let mut payload = Payload::default();
    payload.add("grüß".as_bytes(), 4);
    payload.add(b" dich", 4);
    assert_eq!(payload.json(), json!({"bytes": 11, "truncated": true, "text": "grü"}));
    let mut binary = Payload::default();
    binary.add(&[0xff, 0xfe, 0xfd], 100);
    assert_eq!(binary.json(), json!({"bytes": 3, "truncated": false, "text": null}));
}

#[test]
fn the_oldest_files_go_when_all_together_are_too_large() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["2026-01-01T00.jsonl", "2026-01-02T00.jsonl", "2026-01-03T00.jsonl", "notes.txt"] {
        std::fs::write(folder.path().join(name), [b'x'; 100]).expect("written");
    }
    prune(folder.path(), 150).expect("pruned");
    let mut left: Vec<_> =
        std::fs::read_dir(folder.path()).expect("read").map(|entry| entry.expect("an entry").file_name()).collect();
    left.sort();
    assert_eq!(left, ["2026-01-03T00.jsonl", "notes.txt"]);
}

/// A file system of 64 KiB. Needs the right to mount: the tests run as root.
struct FullDisk(tempfile::TempDir);

impl FullDisk {
    fn mount() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = ["-t", "tmpfs", "-o", "size=64k", "tmpfs"];
        let mounted = std::process::Command::new("mount").args(options).arg(folder.path()).status();
        assert!(mounted.is_ok_and(|status| status.success()), "this test mounts a small tmpfs: run it as root");
        Self(folder)
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_gets_no_empty_files_and_no_line_that_is_cut() {
    let disk = FullDisk::mount();
    let folder = disk.0.path().join("predictions");
    let lost = Arc::new(AtomicU64::new(0));
    let config = Config { predictions_dir: Some(folder.clone()), ..Config::default() };
    let mut writer = Writer::new(folder.clone(), &config, Arc::clone(&lost));
    let line = format!("{{\"text\":\"{}\"}}\n", "x".repeat(3_000));
    let files = || -> Vec<u64> {
        let entries = std::fs::read_dir(&folder).into_iter().flatten();
        entries.map(|entry| entry.expect("an entry").metadata().expect("its length").len()).collect()
    };
    let filler = disk.0.path().join("filler");
    std::fs::write(&filler, vec![0; 40 << 10]).expect("there is room");
    let mut now = Timestamp(1_741_486_593_000_000);
    while writer.append(line.as_bytes(), now).is_ok() {}
    assert_eq!(files().len(), 1);
    for micros in [250_000, 250_000, FILE_MICROS + 1, 250_000, 250_000, FILE_MICROS + 1, 250_000] {
        now = Timestamp(now.0 + micros);
        assert!(writer.append(line.as_bytes(), now).is_err(), "the disk is full");
        assert_eq!(files().len(), 1, "{:?}", files());
    }
    std::fs::remove_file(filler).expect("it was there");
    now = Timestamp(now.0 + 250_000);
    writer.append(line.as_bytes(), now).expect("there is room again");
    for entry in std::fs::read_dir(&folder).expect("it is there") {
        let text = std::fs::read_to_string(entry.expect("an entry").path()).expect("text");
        assert!(!text.is_empty() && text.split_inclusive('\n').all(|found| found == line));
    }
}
