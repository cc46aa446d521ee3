//! Requests over loopback.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::routing::post;
use mixline_http_client::{Failure, Patience, Request, Server, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// Says what was posted to it, and of which media type.
async fn echo() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/below/", listener.local_addr().unwrap());
    let reply = |headers: HeaderMap, body: Bytes| async move {
        let media = headers["content-type"].to_str().unwrap().to_owned();
        format!("{media}: {}", String::from_utf8_lossy(&body))
    };
    let router = Router::new().route("/below/echo", post(reply));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Server::new(&url).unwrap()
}

#[tokio::test]
async fn what_is_posted_arrives_also_several_at_once() {
    let server = echo().await;
    let ask = async |text: &'static str| {
        let answer = server.ask(Request::post_json("echo", text)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        String::from_utf8(answer.body(100).await.unwrap()).unwrap()
    };
    let (one, two) = tokio::join!(ask("1"), ask("2"));
    assert_eq!(one, "application/json: 1");
    assert_eq!(two, "application/json: 2");
    let answer = server.ask(Request::post("echo", "1")).await.unwrap();
    let body = answer.body(100).await.unwrap();
    assert_eq!(body, b"application/octet-stream: 1");
}

#[tokio::test]
async fn a_body_is_read_up_to_its_bound() {
    let server = echo().await;
    for (most, fits) in [(24, false), (25, true)] {
        let answer = server.ask(Request::post_json("echo", "1234567")).await;
        let body = answer.unwrap().body(most).await;
        assert_eq!(body.is_ok(), fits, "{body:?}");
        if !fits {
            assert_eq!(body, Err(Failure::TooLong(most)));
        }
    }
}

#[tokio::test]
async fn what_was_not_sent_is_told_from_what_may_have_been() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let absent = Server::new(&url).unwrap();
    let failure = absent.ask(Request::get("")).await.unwrap_err();
    assert!(failure.is_unsent(), "{failure}");
    assert!(failure.to_string().contains("refused"), "{failure}");
    // Reads requests, and hangs up.
    let (closing, _) = hanging_up(0).await;
    let failure = closing.ask(Request::get("").once()).await.unwrap_err();
    assert!(!failure.is_unsent(), "{failure}");
}

/// A server that answers the first `answered` requests and hangs up on the others; how many there were.
async fn hanging_up(answered: usize) -> (Server, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut buffer = [0; 4096];
            // Each of these requests fits one read.
            while connection.read(&mut buffer).await.is_ok_and(|n| n > 0) {
                if count.fetch_add(1, Ordering::Relaxed) >= answered {
                    break;
                }
                let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
                connection.write_all(answer).await.unwrap();
            }
        }
    });
    let patience = Patience {
        begin: Duration::from_secs(30),
        ..Patience::default()
    };
    (Server::with_patience(&url, patience).unwrap(), requests)
}

#[tokio::test]
async fn only_what_may_be_repeated_is() {
    for (once, sent) in [(false, 3), (true, 2)] {
        let (server, requests) = hanging_up(1).await;
        server.ask(Request::get("")).await.unwrap();
        let request = Request::get("");
        let request = if once { request.once() } else { request };
        let failure = server.ask(request).await.unwrap_err();
        assert!(!failure.is_unsent(), "{failure}");
        assert_eq!(requests.load(Ordering::Relaxed), sent, "once: {once}");
    }
}
