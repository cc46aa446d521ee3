//! A server for tests that says what the test wants.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(dead_code, reason = "each test program uses some of it")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::any;

#[derive(Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

/// A server that gives one answer, or one to each path, and remembers what it was asked.
#[derive(Clone, Default)]
pub struct Server {
    answer: Arc<Mutex<Answer>>,
    at: Arc<Mutex<HashMap<&'static str, Answer>>>,
    pub asked: Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>,
}

impl Server {
    pub async fn start(answer: Answer) -> (Self, String) {
        let server = Self {
            answer: Arc::new(Mutex::new(answer)),
            ..Self::default()
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new()
            .fallback(any(reply))
            .with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (server, url)
    }

    pub fn say(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    pub fn say_at(&self, path: &'static str, answer: Answer) {
        self.at.lock().unwrap().insert(path, answer);
    }

    /// How often it was asked for a path.
    pub fn count(&self, path: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(of, ..)| of == path).count()
    }
}

async fn reply(
    State(server): State<Server>,
    uri: axum::http::Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let path = uri.path().to_owned();
    let answer = server.at.lock().unwrap().get(path.as_str()).cloned();
    let answer = answer.unwrap_or_else(|| server.answer.lock().unwrap().clone());
    server.asked.lock().unwrap().push((path, headers, body));
    let mut response = Response::builder().status(StatusCode::from_u16(answer.status).unwrap());
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    response.body(answer.body.into()).unwrap()
}

pub fn ok(body: Vec<u8>) -> Answer {
    Answer {
        status: 200,
        headers: vec![],
        body,
    }
}
