use super::*;

fn merged(pages: &[(&str, bool)]) -> String {
    let mut all = Exposition::new(1 << 20);
    for (index, (page, is_open_metrics)) in pages.iter().enumerate() {
        let replica = format!("r{index}");
        let source = Source { deployment: "md-1", revision: "1", replica: &replica };
        all.add(page.as_bytes(), *is_open_metrics, &source);
    }
    all.write(0)
}

/// What is told of models, with short words for the labels of replicas.
fn of_models(pages: &[(&str, bool)]) -> String {
    let text = merged(pages).replace(r#"deployment="md-1",revision="1",replica="#, "of=");
    let at = text.find("modelway_replicas_not_asked 0\n").expect("the last of the gateway's own lines");
    text[at..].split_once('\n').expect("more lines").1.to_owned()
}

#[test]
fn a_family_stands_once_with_the_labels_of_each_replica() {
    let page = "# HELP n Counts\n# TYPE n counter\nn_total{x=\"1\"} 4\n# EOF\nrubbish\n";
    let other = "# HELP n_total Counts\n# TYPE n_total counter\nn_total{x=\"2\"} 5 1700000000000\n";
    assert_eq!(
        of_models(&[(page, true), (other, false)]),
        "# HELP n_total Counts\n# TYPE n_total counter\nn_total{of=\"r0\",x=\"1\"} 4\nn_total{of=\"r1\",x=\"2\"} 5\n"
    );
}

#[test]
fn a_models_own_label_of_the_same_name_is_kept_as_in_prometheus() {
    let page = "a{replica=\"mine\",exported_replica=\"too\",deployment=\"\\\"\\\\\\n\"} 1\n";
    let expected = "# TYPE a untyped\na{of=\"r0\",exported_exported_replica=\"mine\",exported_replica=\"too\",\
                    exported_deployment=\"\\\"\\\\\\n\"} 1\n";
    assert_eq!(of_models(&[(page, false)]), expected);
}

#[test]
fn one_name_of_different_types_is_untyped_and_keeps_its_values() {
    let gauge = "# HELP h A gauge\\nof two lines\n# TYPE h gauge\nh 1\n";
    let histogram = "# HELP h A histogram\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n";
    assert_eq!(
        of_models(&[(gauge, false), (histogram, false), (gauge, false)]),
        "# HELP h A gauge\\nof two lines\n# TYPE h untyped\nh{of=\"r0\"} 1\nh{of=\"r2\"} 1\n\
         h_bucket{of=\"r1\",le=\"+Inf\"} 2\nh_count{of=\"r1\"} 2\nh_sum{of=\"r1\"} 3\n"
    );
}

#[test]
fn a_sample_whose_name_belongs_to_another_family_is_dropped_and_counted() {
    let histogram = "# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_sum 3\nh_count 2\n";
    let text = merged(&[(histogram, false), ("# TYPE h_count counter\nh_count 7\n", false)]);
    assert!(!text.contains(" 7\n"), "{text}");
    assert!(text.contains("scrape_dropped_lines{deployment=\"md-1\",revision=\"1\",replica=\"r1\"} 1\n"), "{text}");
    let text = merged(&[("h_count 7\n", false), (histogram, false)]);
    assert!(text.contains(" 7\n") && !text.contains("h_bucket"), "{text}");
}

#[test]
fn lines_that_cannot_be_read_and_series_that_stand_twice_are_dropped_and_counted() {
    let page =
        "ok 1\nok 2\nrubbish\n# TYPE h histogram\nh 1\nh_bucket 1\nh_bucket{le=\"x\"} 1\nmodelway_replica_up 1\n";
    let text = merged(&[(page, false), ("<html>\n<body>\n", false), ("", false)]);
    for line in [
        "ok{deployment=\"md-1\",revision=\"1\",replica=\"r0\"} 1",
        "modelway_replica_up{deployment=\"md-1\",revision=\"1\",replica=\"r0\"} 1",
        "modelway_replica_up{deployment=\"md-1\",revision=\"1\",replica=\"r1\"} 0",
        "modelway_replica_up{deployment=\"md-1\",revision=\"1\",replica=\"r2\"} 1",
        "modelway_replica_scrape_dropped_lines{deployment=\"md-1\",revision=\"1\",replica=\"r0\"} 6",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert_eq!(text.lines().filter(|line| line.starts_with("modelway_replica_up{")).count(), 3, "{text}");
}

#[test]
fn types_of_openmetrics_become_those_of_the_text_format() {
    let page = "# TYPE build info\nbuild_info{v=\"1\"} 1\n# TYPE s stateset\ns{s=\"a\"} 1\n# TYPE u unknown\nu 1\n\
                # TYPE g gaugehistogram\ng_bucket{le=\"1\"} 1\n# TYPE n counter\nn_total 1\nn_created 2\n";
    let text = of_models(&[(page, true)]);
    let types: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
    assert_eq!(
        types,
        [
            "# TYPE build_info gauge",
            "# TYPE g_bucket untyped",
            "# TYPE n_created untyped",
            "# TYPE n_total counter",
            "# TYPE s gauge",
            "# TYPE u untyped"
        ]
    );
}

#[test]
fn the_page_is_bounded_whatever_replicas_send() {
    let mut all = Exposition::new(1_000);
    let page: String = (0..1_000).map(|number| format!("a{{x=\"{number}\"}} 1\n")).collect();
    all.add(page.as_bytes(), false, &Source { deployment: "md-1", revision: "1", replica: "r" });
    let text = all.write(0);
    assert!(text.len() < 2_000, "{} bytes", text.len());
    assert!(text.contains("dropped_lines{deployment=\"md-1\",revision=\"1\",replica=\"r\"} 9"), "{text}");
}
