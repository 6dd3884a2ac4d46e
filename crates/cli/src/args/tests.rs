use std::time::Duration;

use super::{common::duration, *};

/// Every command and subcommand, by its words.
fn commands() -> Vec<(String, clap::Command)> {
    fn walk(words: &str, command: &clap::Command, found: &mut Vec<(String, clap::Command)>) {
        for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
            let words = format!("{words} {}", below.get_name());
            walk(&words, below, found);
            found.push((words, below.clone()));
        }
    }
    let mut command = Cli::words();
    command.build();
    let mut found = Vec::new();
    walk("modelway", &command, &mut found);
    found
}

/// What a person reads who types these words and `--help`.
fn page(words: &str) -> String {
    let command = Cli::words().term_width(110);
    let asked = command.try_get_matches_from(words.split(' ').chain(["--help"]));
    asked.expect_err("help ends the parsing").to_string()
}

#[test]
fn the_command_line_is_sound() {
    Cli::words().debug_assert();
}

#[test]
fn the_first_page_names_every_command() {
    let page = page("modelway");
    for command in Cli::words().get_subcommands() {
        let line = format!("\n  {} ", command.get_name());
        assert!(page.contains(&line), "{} is missing", command.get_name());
    }
    insta::assert_snapshot!(page);
}

#[test]
fn every_page_of_help_is_as_reviewed() {
    for (words, _) in commands() {
        insta::assert_snapshot!(words.replace(' ', "-"), page(&words));
    }
}

#[test]
fn every_page_of_help_has_an_example_that_can_be_typed() {
    for (words, command) in commands() {
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(after.contains("modelway "), "{words} has no example");
        for line in after.lines().filter_map(|line| line.trim().strip_prefix("modelway ")) {
            let line = line.split([';', '|', '#']).next().unwrap_or_default().trim();
            if line.contains(['\'', '$', '<']) {
                continue;
            }
            let typed = ["modelway"].into_iter().chain(line.split_whitespace());
            let parsed = Cli::try_parse_from(typed);
            assert!(parsed.is_ok(), "{words}: modelway {line}: {}", parsed.map(|_| ()).unwrap_err());
        }
    }
}

#[test]
fn a_wrong_number_of_replicas_is_answered_with_the_right_ones() {
    for line in ["scale iris -1", "scale iris many", "scale iris 5000", "deploy ./m --replicas -1"] {
        let parsed = Cli::try_parse_from(["modelway"].into_iter().chain(line.split(' ')));
        let error = parsed.expect_err(line).to_string();
        assert!(error.contains("write a whole number from 0 to 1000"), "{line}: {error}");
    }
}

#[test]
fn no_page_of_help_shows_how_its_text_is_written() {
    for (words, _) in commands() {
        let page = page(&words);
        assert!(!page.contains(['\\', '`']) || words == "modelway apply", "{words}: {page}");
    }
}

#[test]
fn a_time_has_a_unit() {
    assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
    assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
    assert_eq!(duration("2h"), Ok(Duration::from_secs(7_200)));
    for wrong in ["", "m", "1d", "-1s", "1.5s", "99999999999999999999h"] {
        assert!(duration(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn the_words_that_scripts_rely_on_are_there() {
    for line in [
        "up --data-dir d --gateway-addr 127.0.0.1:1 --control-addr 127.0.0.1:2",
        "up --dump-config",
        "serve --model-uri u --model-name md-1 --alias iris --model-version 1 --digest sha256:0 --socket s --replica-id md-1-r1-0 --termination-message f --drain-ms 5000",
        "serve ./m --host 0.0.0.0 --port 8080",
        "deploy ./m --name n --replicas 2 --version 1 --env A=1 --label b=2 --cpu 1 --memory 1Gi --cpu-limit 1 --memory-limit 1Gi --timeout 1s --digest sha256:0 --wait",
        "deploy ./m --no-wait",
        "worker --backend fake",
        "scale iris 2 --wait",
        "delete iris 2 --yes --wait",
        "apply -f - --dry-run",
        "logs iris -f --tail 5",
        "golden record ./m",
        "list -o json",
    ] {
        let parsed = Cli::try_parse_from(["modelway"].into_iter().chain(line.split(' ')));
        assert!(parsed.is_ok(), "modelway {line}: {}", parsed.map(|_| ()).unwrap_err());
    }
}
