//! A server that behaves as its image says, for the faults that a real one does not have on demand.
//! Compiled by the tests themselves, static, so that it is an image's only file.
//!
//! BEHAVIOUR: serve, exit, sick (never healthy); SCHEMA: the first line of the database that it
//! accepts; MIGRATION: none, moves, fails, slow.

use std::io::{Read, Write};

const DATABASE: &str = "/data/mlflow.db";

fn var(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

// As process 1 of a container it would not hear SIGTERM otherwise.
unsafe extern "C" {
    fn signal(number: i32, handler: usize) -> usize;
}

extern "C" fn terminated(_: i32) {
    std::process::exit(0);
}

fn main() {
    unsafe { signal(15, terminated as *const () as usize) };
    let schema = var("SCHEMA");
    if std::env::args().nth(1).as_deref() == Some("db") {
        println!("migrating to {schema}");
        if var("MIGRATION") == "slow" {
            std::fs::write(DATABASE, "half").unwrap();
            std::thread::sleep(std::time::Duration::from_secs(600));
        }
        let old = std::fs::read_to_string(DATABASE).unwrap();
        if var("MIGRATION") != "none" {
            let rest = old.split_once('\n').map_or("", |(_, rest)| rest);
            std::fs::write(DATABASE, format!("{schema}\n{rest}")).unwrap();
        }
        std::process::exit((var("MIGRATION") == "fails") as i32);
    }
    if var("BEHAVIOUR") == "exit" {
        eprintln!("this one cannot work");
        std::process::exit(3);
    }
    if !std::path::Path::new(DATABASE).exists() {
        std::fs::write(DATABASE, format!("{schema}\n")).unwrap();
    }
    let found = std::fs::read_to_string(DATABASE).unwrap();
    if found.lines().next() != Some(&schema) {
        eprintln!("schema {found:?} is not {schema}");
        std::process::exit(4);
    }
    let listener = std::net::TcpListener::bind(format!("{}:{}", var("MLFLOW_HOST"), var("MLFLOW_PORT"))).unwrap();
    println!("serving {}", var("NAME"));
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut request = String::new();
        while !request.contains("\r\n\r\n") {
            let mut piece = [0; 4096];
            let Ok(n @ 1..) = stream.read(&mut piece) else { break };
            request.push_str(&String::from_utf8_lossy(&piece[..n]));
        }
        let path = request.split(' ').nth(1).unwrap_or("");
        let (status, body) = match path {
            "/health" if var("BEHAVIOUR") == "sick" => ("503 Sick", "sick".to_owned()),
            "/name" => ("200 OK", var("NAME")),
            "/write" => {
                let mut file = std::fs::OpenOptions::new().append(true).open(DATABASE).unwrap();
                ("200 OK", file.write_all(b"row\n").map_or_else(|error| error.to_string(), |()| String::new()))
            }
            "/database" => ("200 OK", std::fs::read_to_string(DATABASE).unwrap()),
            path if path == "/health" || path.starts_with("/api/2.0/mlflow/experiments/search") => ("200 OK", "{}".to_owned()),
            _ => ("404 Not Found", String::new()),
        };
        let length = body.len();
        let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    }
}
