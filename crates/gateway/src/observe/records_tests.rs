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
