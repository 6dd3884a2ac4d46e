//! gRPC through the gateway, framed by hand: the bytes and the trailers must come as they went.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use std::time::Duration;

use api::route::form1::Route;
use bytes::Bytes;
use futures::StreamExt as _;
use harness::{
    Control, Gateway, Manner, Replica,
    grpc::{begin, call, framed, infer, messages, pieces, send, whole},
    route,
};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;

#[tokio::test]
async fn a_call_reaches_the_model_that_its_message_names_and_comes_back_whole() {
    let (replica, _control, gateway) = Gateway::simple(Manner::Grpc).await;
    let reply = call(&gateway, "ModelInfer", &infer("iris")).await;
    assert_eq!(reply.status().0, "0");
    assert_eq!(reply.message[5..], infer("iris"), "the bytes are as they came");
    assert_eq!(reply.trailers["x-by"], "a", "and the trailers");
    assert_eq!(reply.headers["x-modelway-replica"], "a");
    assert_eq!(replica.seen.lock().unwrap()["te"], "trailers");
    let (_, _, metrics) = gateway.get("/metrics").await;
    assert!(metrics.contains(r#"requests_total{deployment="md-1",revision="1",code="200"} 1"#), "{metrics}");
    gateway.stop().await;
}

#[tokio::test]
async fn what_cannot_be_served_is_a_grpc_status() {
    let (replica, control, gateway) = Gateway::simple(Manner::Grpc).await;
    let reply = call(&gateway, "ModelInfer", &infer("irsi")).await;
    let (status, words) = reply.status();
    assert_eq!(status, "5");
    assert_eq!(words, "Request for unknown model `irsi`: did you mean `iris`?");
    control.set(2, Some(route("empty", &[])));
    gateway.until_known("empty").await;
    assert_eq!(call(&gateway, "ModelInfer", &infer("empty")).await.status().0, "14");
    assert_eq!(call(&gateway, "RepositoryIndex", &[]).await.status().0, "12");
    assert_eq!(call(&gateway, "ModelStatistics", &[]).await.status().0, "5", "the statistics of all models");
    replica.kill().await;
    assert_eq!(call(&gateway, "ModelInfer", &infer("iris")).await.status().0, "14");
    gateway.stop().await;
}

#[tokio::test]
async fn the_server_methods_are_answered_by_the_gateway_itself() {
    let (replica, _control, gateway) = Gateway::simple(Manner::Grpc).await;
    for method in ["ServerLive", "ServerReady"] {
        let reply = call(&gateway, method, &[]).await;
        assert_eq!((reply.status().0, &reply.message[5..]), ("0", &[8, 1][..]), "{method}");
    }
    let reply = call(&gateway, "ServerMetadata", &[]).await;
    let said = String::from_utf8_lossy(&reply.message);
    for wanted in ["modelway", "binary_tensor_data", "generate", "model_configuration", "parameters", "statistics"] {
        assert!(said.contains(wanted), "{wanted} is not in {said:?}");
    }
    assert!(!said.contains("model_repository"), "{said:?}");
    assert_eq!(replica.requests(), 0);
    gateway.stop().await;
}

#[tokio::test]
async fn a_replica_that_is_gone_costs_no_call() {
    let (one, two) = (Replica::start("a", Manner::Grpc).await, Replica::start("b", Manner::Grpc).await);
    let control = Control::start().await;
    control.set(1, Some(route("iris", &[&one, &two])));
    let gateway = Gateway::start(&control).await;
    gateway.until_known("md-1").await;
    for _ in 0..6 {
        assert_eq!(call(&gateway, "ModelInfer", &infer("iris")).await.status().0, "0");
    }
    assert!(one.requests() > 0 && two.requests() > 0);
    one.kill().await;
    for _ in 0..6 {
        assert_eq!(call(&gateway, "ModelInfer", &infer("iris")).await.status().0, "0");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_fatal_call_ends_two_replicas_at_most() {
    let mut replicas = Vec::new();
    for name in ["a", "b", "c"] {
        replicas.push(Replica::start(name, Manner::Fatal).await);
    }
    let control = Control::start().await;
    control.set(1, Some(route("iris", &replicas.iter().collect::<Vec<_>>())));
    let gateway = Gateway::start(&control).await;
    gateway.until_known("md-1").await;
    let mut message = infer("iris");
    message.extend_from_slice(&[0x3a, 6]);
    message.extend_from_slice(b"poison");
    let reply = call(&gateway, "ModelInfer", &message).await;
    let (status, words) = reply.status();
    assert_eq!((status, replicas.iter().filter(|replica| replica.is_dead()).count()), ("14", 2), "{words}");
    assert!(words.contains("had broken with it before"), "{words}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_costs_no_try() {
    let one = Replica::start("a", Manner::Grpc).await;
    let control = Control::start().await;
    control.set(1, Some(route("iris", &[&one])));
    let gateway = Gateway::start(&control).await;
    gateway.until_known("md-1").await;
    assert_eq!(call(&gateway, "ModelInfer", &infer("iris")).await.status().0, "0");
    one.close_connections();
    for _ in 0..4 {
        assert_eq!(call(&gateway, "ModelInfer", &infer("iris")).await.status().0, "0");
    }
    let (_, _, metrics) = gateway.get("/metrics").await;
    assert!(metrics.contains("modelway_gateway_retries_total 0"), "{metrics}");
    gateway.stop().await;
}

/// Two deployments with a replica each.
async fn iris_and_digits() -> ([Replica; 2], Control, Gateway) {
    let [one, two] = [Replica::start("a", Manner::Grpc).await, Replica::start("b", Manner::Grpc).await];
    let control = Control::start().await;
    control.set(1, Some(route("iris", &[&one])));
    control.set(2, Some(route("digits", &[&two])));
    let gateway = Gateway::start(&control).await;
    gateway.until_known("md-2").await;
    ([one, two], control, gateway)
}

#[tokio::test]
async fn each_message_of_a_stream_goes_to_its_own_model() {
    let ([one, two], _control, gateway) = iris_and_digits().await;
    let mut long = infer("digits");
    long.extend_from_slice(&[0x3a, 0xe0, 0xd4, 0x03]);
    long.resize(long.len() + 60_000, 7);
    let short = [infer("iris"), infer("digits"), infer("iris"), infer("digits")];
    let sent = [infer("iris"), long, infer("iris"), infer("digits")];
    let mut to_two = 0;
    // Thousands of frames below 256 bytes at once would be refused as a flood, on the client's own connection.
    for (sent, size) in [(&short, 7), (&sent, 300), (&sent, 1_000), (&sent, usize::MAX)] {
        let stream: Vec<u8> = sent.iter().flat_map(|message| framed(message)).collect();
        let path = "inference.GRPCInferenceService/ModelStreamInfer";
        let reply = send(&gateway, path, None, pieces(&stream, size.min(stream.len()))).await;
        assert_eq!(reply.status().0, "0", "{}", reply.status().1);
        let mut came = messages(&reply.message);
        let mut wanted: Vec<&[u8]> = sent.iter().map(Vec::as_slice).collect();
        came.sort_unstable();
        wanted.sort_unstable();
        let lengths = |them: &[&[u8]]| them.iter().map(|it| it.len()).collect::<Vec<_>>();
        let said = String::from_utf8_lossy(came[came.len() - 1]);
        let said = said.chars().take(300).collect::<String>();
        assert!(came == wanted, "{:?} instead of {:?} in pieces of {size}: {said}", lengths(&came), lengths(&wanted));
        to_two += sent[1].len() + sent[3].len() + 10;
    }
    assert_eq!((one.requests(), two.requests()), (4, 4));
    assert_eq!(usize::try_from(two.bytes.load(std::sync::atomic::Ordering::SeqCst)).unwrap(), to_two);
    gateway.stop().await;
}

#[tokio::test]
async fn a_stream_that_announces_its_length_goes_to_several_models_without_it() {
    let (_replicas, _control, gateway) = iris_and_digits().await;
    for names in [["iris", "digits"], ["iris", "none"]] {
        let stream: Vec<u8> = names.iter().flat_map(|name| framed(&infer(name))).collect();
        let body = Full::<Bytes>::from(stream);
        let reply = send(&gateway, "inference.GRPCInferenceService/ModelStreamInfer", None, body).await;
        assert_eq!((reply.status().0, messages(&reply.message).len()), ("0", 2), "{}", reply.status().1);
    }
    let (_, _, metrics) = gateway.get("/metrics").await;
    assert!(!metrics.contains("ejections_total{"), "nothing speaks against the replicas: {metrics}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_message_for_nobody_is_answered_in_the_stream_and_the_others_go_on() {
    let (replica, _control, gateway) = Gateway::simple(Manner::Grpc).await;
    for order in [["iris", "none", "iris", "none"], ["none", "iris", "none", "iris"]] {
        let stream: Vec<u8> = order.iter().flat_map(|name| framed(&infer(name))).collect();
        let path = "inference.GRPCInferenceService/ModelStreamInfer";
        let reply = send(&gateway, path, None, pieces(&stream, 9)).await;
        assert_eq!(reply.status().0, "0", "{}", reply.status().1);
        let came = messages(&reply.message);
        let good = came.iter().filter(|message| **message == infer("iris")).count();
        let bad = came.iter().filter(|message| String::from_utf8_lossy(message).contains("model `none`"));
        // Each with the id of its request, and as the last answer to it.
        let told = |message: &&&[u8], part: &[u8]| message.windows(part.len()).any(|window| window == part);
        let bad = bad.filter(|it| told(it, &[0x1a, 2, b'i', b'd']) && told(it, b"triton_final_response")).count();
        assert_eq!((good, bad), (2, 2), "{came:?}");
    }
    let mut broken = framed(&infer("iris"));
    broken.extend_from_slice(&framed(&[0x0f, 1, 2]));
    let reply = send(&gateway, "inference.GRPCInferenceService/ModelStreamInfer", None, pieces(&broken, 50)).await;
    assert_eq!((reply.status().0, messages(&reply.message)), ("3", vec![&*infer("iris")]));
    assert_eq!(replica.requests(), 3);
    gateway.stop().await;
}

#[tokio::test]
async fn models_that_cannot_be_reached_take_no_place_among_those_of_a_stream() {
    let replica = Replica::start("a", Manner::Grpc).await;
    let control = Control::start().await;
    for id in 1..=65 {
        control.set(id, Some(route(&format!("m{id}"), &[&replica])));
    }
    let gateway = Gateway::start(&control).await;
    gateway.until_known("md-65").await;
    let path = "inference.GRPCInferenceService/ModelStreamInfer";
    let ask = async |names: &[String]| {
        let stream: Vec<u8> = names.iter().flat_map(|name| framed(&infer(name))).collect();
        send(&gateway, path, None, pieces(&stream, 500)).await
    };
    let (well, none) = ((1..=64).map(|id| format!("m{id}")), (0..200).map(|id| format!("none-{id}")));
    let names: Vec<_> = none.chain(well.clone()).collect();
    let reply = ask(&names).await;
    assert_eq!(reply.status().0, "0", "{}", reply.status().1);
    let came = messages(&reply.message);
    assert_eq!(came.len(), 264);
    for name in &names {
        let is_known = name.starts_with('m');
        let answers = |message: &&[u8]| {
            let words = String::from_utf8_lossy(message);
            if is_known { *message == infer(name) } else { words.contains(&format!("model `{name}`")) }
        };
        assert!(came.iter().any(answers), "{name}");
    }
    let reply = ask(&well.chain(["m65".to_owned()]).collect::<Vec<_>>()).await;
    assert_eq!(reply.status(), ("3", "the stream names more than 64 models"));
    gateway.stop().await;
}

#[tokio::test]
async fn a_compressed_message_reaches_its_model_as_it_came() {
    use std::io::Write as _;
    let (replica, _control, gateway) = Gateway::simple(Manner::Grpc).await;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&infer("iris")).unwrap();
    let mut packed = framed(&encoder.finish().unwrap());
    packed[0] = 1;
    let path = "inference.GRPCInferenceService/ModelInfer";
    let reply = send(&gateway, path, Some("gzip"), Full::<Bytes>::from(packed.clone())).await;
    assert_eq!((reply.status().0, &reply.message), ("0", &packed));
    let reply = send(&gateway, path, Some("zstd"), Full::<Bytes>::from(packed)).await;
    assert_eq!(reply.status().0, "12", "{}", reply.status().1);
    assert_eq!(replica.requests(), 1);
    gateway.stop().await;
}

#[tokio::test]
async fn the_health_of_each_model_is_told() {
    let (replica, control, gateway) = Gateway::simple(Manner::Grpc).await;
    control.set(2, Some(route("idle", &[])));
    control.set(3, Some(Route { former: Some("was".to_owned()), ..route("will-be", &[&replica]) }));
    gateway.until_known("idle").await;
    gateway.until_known("will-be").await;
    for (service, wanted) in [
        ("", "1"),
        ("iris", "1"),
        ("md-1", "1"),
        ("idle", "2"),
        ("was", "1"),
        ("md-3", "1"),
        ("will-be", "2"),
        ("none", "not found"),
    ] {
        let mut check = vec![0x0a, u8::try_from(service.len()).unwrap()];
        check.extend_from_slice(service.as_bytes());
        let body = Full::<Bytes>::from(framed(if service.is_empty() { &[] } else { &check }));
        let reply = send(&gateway, "grpc.health.v1.Health/Check", None, body).await;
        match wanted {
            "not found" => assert_eq!(reply.status().0, "5", "{service}"),
            code => assert_eq!(reply.message[5..], [8, code.parse().unwrap()], "{service}"),
        }
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_change_of_health_is_told_to_those_who_watch_until_the_gateway_ends() {
    let (replica, control, gateway) = Gateway::simple(Manner::Grpc).await;
    let mut check = vec![0x0a, 4];
    check.extend_from_slice(b"iris");
    let body = Full::<Bytes>::from(framed(&check));
    let (mut answer, _connection) = begin(&gateway, "grpc.health.v1.Health/Watch", &[], body).await;
    let mut next = async || {
        let next = tokio::time::timeout(std::time::Duration::from_secs(20), answer.frame());
        next.await.expect("a frame in time").expect("a frame").unwrap()
    };
    for (change, status) in
        [(None, 1), (Some(Some(route("iris", &[]))), 2), (Some(Some(route("iris", &[&replica]))), 1), (Some(None), 3)]
    {
        if let Some(route) = change {
            control.set(1, route);
        }
        assert_eq!(next().await.into_data().unwrap()[..], framed(&[8, status]));
    }
    gateway.begin_stop();
    assert_eq!(next().await.into_trailers().unwrap()["grpc-status"], "14");
    gateway.stop().await;
}

#[tokio::test]
async fn a_call_ends_when_its_callers_own_time_is_up() {
    let (replica, _control, gateway) = Gateway::simple(Manner::Never).await;
    let call = async |path: &str, timeout: &str, message: &[u8]| {
        let body = Full::<Bytes>::from(framed(message));
        let answer = whole(begin(&gateway, path, &[("grpc-timeout", timeout)], body).await);
        tokio::time::timeout(std::time::Duration::from_secs(20), answer).await.expect("an end in time")
    };
    let reply = call("inference.GRPCInferenceService/ModelInfer", "300m", &infer("iris")).await;
    assert_eq!(reply.status().0, "4", "{:?}", reply.status());
    // The replica is told how much of the time is left.
    let left = replica.seen.lock().unwrap()["grpc-timeout"].to_str().unwrap().to_owned();
    let micros: u32 = left.strip_suffix('u').unwrap().parse().unwrap();
    assert!((1..300_000).contains(&micros), "{left}");
    let reply = call("grpc.health.v1.Health/Watch", "100m", &[]).await;
    assert_eq!((reply.status().0, &reply.message[..]), ("4", &framed(&[8, 1])[..]), "{:?}", reply.status());
    // Also while the message of one of the gateway's own services is waited for.
    let never = StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, std::io::Error>>());
    let reply = begin(&gateway, "grpc.health.v1.Health/Check", &[("grpc-timeout", "300m")], never);
    let reply = tokio::time::timeout(Duration::from_secs(5), async { whole(reply.await).await }).await;
    let reply = reply.expect("an end before the message is given up");
    assert_eq!(reply.status().0, "4", "{:?}", reply.status());
    let reply = call("inference.GRPCInferenceService/ServerLive", "0n", &[]).await;
    assert_eq!(reply.status().0, "4", "{:?}", reply.status());
    // One whose time is up before its message is there is not sent on.
    let before = replica.requests();
    let reply = call("inference.GRPCInferenceService/ModelInfer", "0n", &infer("iris")).await;
    assert_eq!((reply.status().0, replica.requests()), ("4", before), "{:?}", reply.status());
    for wrong in ["1", "1s", "123456789S", "-1S"] {
        let reply = call("inference.GRPCInferenceService/ModelInfer", wrong, &infer("iris")).await;
        let (status, words) = reply.status();
        assert!(status == "3" && words.contains(wrong) && words.contains("eight digits"), "{wrong}: {status} {words}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_message_that_is_sent_on_while_it_comes_ends_when_its_callers_own_time_is_up() {
    let (_replica, _control, gateway) = Gateway::simple(Manner::Grpc).await;
    // A field of 16,000,000 bytes, of which 2 MiB come at once and the rest bit by bit.
    let mut message = infer("iris");
    message.extend_from_slice(&[0x3a, 0x80, 0xc8, 0xd0, 0x07]);
    let length = u32::try_from(message.len() + 16_000_000).unwrap();
    let beginning = [&[0][..], &length.to_be_bytes(), &message, &vec![0; 2 << 20]].concat();
    let ticks = futures::stream::unfold(tokio::time::interval(Duration::from_millis(20)), |mut ticks| async {
        ticks.tick().await;
        Some((Bytes::from_static(&[0; 1024]), ticks))
    });
    let pieces = futures::stream::iter([Bytes::from(beginning)]).chain(ticks);
    let body = StreamBody::new(Box::pin(pieces.map(|piece| Ok::<_, std::io::Error>(Frame::data(piece)))));
    let path = "inference.GRPCInferenceService/ModelInfer";
    let answer = async { whole(begin(&gateway, path, &[("grpc-timeout", "500m")], body).await).await };
    let reply = tokio::time::timeout(Duration::from_secs(20), answer).await.expect("an end in time");
    assert_eq!(reply.status().0, "4", "{:?}", reply.status());
    gateway.stop().await;
}

#[tokio::test]
async fn a_model_that_does_not_serve_is_not_ready_and_no_error() {
    let (replica, control, gateway) = Gateway::simple(Manner::Grpc).await;
    control.set(2, Some(route("idle", &[])));
    gateway.until_known("idle").await;
    let of_version = |version: &[u8]| {
        let mut message = vec![0x0a, 4];
        message.extend_from_slice(b"iris");
        message.extend_from_slice(&[0x12, u8::try_from(version.len()).unwrap()]);
        message.extend_from_slice(version);
        message
    };
    control.set(3, Some(Route { former: Some("was".to_owned()), ..route("will-be", &[&replica]) }));
    gateway.until_known("will-be").await;
    assert_eq!(gateway.get("/v2/models/will-be/ready").await.0, 503);
    for asked in [infer("none"), infer("idle"), infer("will-be"), of_version(b"v9")] {
        let reply = call(&gateway, "ModelReady", &asked).await;
        assert_eq!((reply.status(), &reply.message[..]), (("0", ""), &framed(&[])[..]), "{asked:?}");
    }
    assert_eq!(replica.requests(), 0);
    let reply = call(&gateway, "ModelReady", &of_version(b"v1")).await;
    assert_eq!((reply.status().0, replica.requests()), ("0", 1), "the replica is asked");
    gateway.stop().await;
}

#[tokio::test]
async fn a_model_whose_replica_died_just_now_is_unavailable() {
    let (replica, _control, gateway) = Gateway::simple(Manner::Grpc).await;
    assert_eq!(call(&gateway, "ModelReady", &infer("iris")).await.status().0, "0");
    replica.kill().await;
    assert_eq!(call(&gateway, "ModelReady", &infer("iris")).await.status().0, "14");
    assert_eq!(gateway.get("/v2/models/iris/ready").await.0, 503);
    gateway.stop().await;
}

#[tokio::test]
async fn a_long_call_streams_through() {
    let (replica, _control, gateway) = Gateway::simple(Manner::Grpc).await;
    let mut message = infer("iris");
    // Field 7, raw contents, of 5 MiB.
    message.extend_from_slice(&[0x3a, 0x80, 0x80, 0xc0, 0x02]);
    message.resize(message.len() + (5 << 20), 7);
    assert_eq!(call(&gateway, "ModelInfer", &message).await.status().0, "0");
    let came = replica.bytes.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(came, message.len() as u64 + 5);
    gateway.stop().await;
}

#[tokio::test]
async fn rest_works_over_http2_too() {
    let (_replica, _control, gateway) = Gateway::simple(Manner::Well).await;
    let client = base::client::builder().http2_prior_knowledge().build().unwrap();
    let response = client.post(gateway.url("/v2/models/iris/infer")).body("{}").send().await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    assert_eq!(
        (response.status().as_u16(), response.text().await.unwrap().as_str()),
        (200, "a /v2/models/iris/infer 2")
    );
    gateway.stop().await;
}

#[tokio::test]
async fn an_open_http2_connection_does_not_hold_up_the_end() {
    let (_replica, _control, gateway) = Gateway::simple(Manner::Well).await;
    let client = base::client::builder().http2_prior_knowledge().build().unwrap();
    let response = client.post(gateway.url("/v2/models/iris/infer")).body("{}").send().await.unwrap();
    assert_eq!(response.status(), 200);
    let begun = std::time::Instant::now();
    gateway.stop().await;
    assert!(begun.elapsed() < std::time::Duration::from_secs(2), "it took {:?}", begun.elapsed());
}
