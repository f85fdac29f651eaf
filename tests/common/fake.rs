//! A server that is not Footfall, or that answers as Footfall rarely does.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// Answers each request with the next text, and repeats the last one. It closes the connection behind each answer.
pub struct FakeServer {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl FakeServer {
    pub fn start(answers: &[String]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (requests, mut answers) = (Arc::new(Mutex::new(Vec::new())), answers.to_vec());
        let seen = requests.clone();
        std::thread::spawn(move || {
            while let Ok((mut socket, _)) = listener.accept() {
                let Some(request) = request(&mut socket) else { continue };
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(request);
                let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
                let _ = socket.write_all(answer.as_bytes()); // the client may have left
            }
        });
        FakeServer { address, requests }
    }

    /// Returns the requests so far, each with its head and its body.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Returns an answer that ends with the connection.
pub fn answer(status: &str, content_type: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nConnection: close\r\n\r\n{body}")
}

fn request(socket: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte).ok()?;
        bytes.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&bytes).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    socket.read_exact(&mut body).ok()?;
    bytes.extend(body);
    String::from_utf8(bytes).ok()
}
