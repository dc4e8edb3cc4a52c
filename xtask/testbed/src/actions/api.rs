//! As much of GitHub's API as the workflows call: a repository's issues and their comments
//! (<https://docs.github.com/en/rest/issues>).

use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::http::{Head, Length, answer};
use crate::loopback::Loopback;

/// Who writes with a workflow's own token.
const BOT: &str = "github-actions[bot]";
/// GitHub refuses longer texts.
const LONGEST_BODY: usize = 65536;

/// An issue or a pull request.
#[derive(Clone, Debug)]
pub struct Issue {
    /// Its number.
    pub number: u64,
    /// Whether it is a pull request.
    pub pull_request: bool,
    /// Its title.
    pub title: String,
    /// Its text, which may be missing.
    pub body: Option<String>,
    /// Who wrote it.
    pub author: String,
    /// Whether it is open.
    pub open: bool,
}

/// A comment on one.
#[derive(Clone, Debug)]
pub struct Comment {
    /// Its id, in the whole repository.
    pub id: u64,
    /// The number of the issue.
    pub issue: u64,
    /// Its text.
    pub body: String,
    /// Who wrote it.
    pub author: String,
}

#[derive(Debug, Default)]
struct State {
    issues: Vec<Issue>,
    comments: Vec<Comment>,
    /// Method, path and status of each request.
    log: Vec<String>,
}

#[derive(Debug)]
struct Shared {
    repository: String,
    token: String,
    state: Mutex<State>,
}

/// The running API of one repository.
#[derive(Debug)]
pub struct Api {
    server: Loopback,
    shared: Arc<Shared>,
}

impl Api {
    /// An API for `owner/name` that knows one token.
    pub fn start(repository: &str, token: &str) -> Self {
        let shared = Shared { repository: repository.to_owned(), token: token.to_owned(), state: Mutex::default() };
        let shared = Arc::new(shared);
        let task = Arc::clone(&shared);
        let server = Loopback::serve(move |client| {
            let shared = Arc::clone(&task);
            async move { drop(serve(client, &shared).await) }
        });
        Self { server, shared }
    }

    /// Its base, for `github.api_url`.
    pub fn url(&self) -> String {
        format!("http://{}", self.server.address)
    }

    /// Somebody opens an issue or a pull request; gives its number.
    pub fn open(&self, author: &str, title: &str, body: Option<&str>, pull_request: bool) -> u64 {
        self.state().open(author, title, body.map(str::to_owned), pull_request).number
    }

    /// Somebody comments on one; gives the comment's id.
    pub fn comment(&self, author: &str, issue: u64, body: &str) -> u64 {
        self.state().comment(author, issue, body).id
    }

    /// All issues and pull requests, oldest first.
    pub fn issues(&self) -> Vec<Issue> {
        self.state().issues.clone()
    }

    /// All comments, oldest first.
    pub fn comments(&self) -> Vec<Comment> {
        self.state().comments.clone()
    }

    /// Method, path and status of each request.
    pub fn log(&self) -> Vec<String> {
        self.state().log.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("the state")
    }
}

impl State {
    fn open(&mut self, author: &str, title: &str, body: Option<String>, pull_request: bool) -> Issue {
        let number = self.issues.len() as u64 + 1;
        let (title, author) = (title.to_owned(), author.to_owned());
        let issue = Issue { number, pull_request, title, body, author, open: true };
        self.issues.push(issue.clone());
        issue
    }

    fn comment(&mut self, author: &str, issue: u64, body: &str) -> Comment {
        let id = 1000 + self.comments.len() as u64;
        let comment = Comment { id, issue, body: body.to_owned(), author: author.to_owned() };
        self.comments.push(comment.clone());
        comment
    }

    fn handle(&mut self, method: &str, path: &[&str], query: &Query, body: &Value) -> (u16, Value) {
        let not_found = (404, json!({ "message": "Not Found" }));
        let text = |name: &str| body[name].as_str().map(str::to_owned);
        match (method, path) {
            ("GET", ["issues"]) => {
                let state = query.get("state").unwrap_or("open");
                let wanted = |issue: &&Issue| state == "all" || issue.open == (state == "open");
                // The newest come first.
                (200, query.page(self.issues.iter().rev().filter(wanted).map(Issue::json)))
            }
            ("POST", ["issues"]) => match text("title") {
                Some(title) => (201, self.open(BOT, &title, text("body"), false).json()),
                None => (422, json!({ "message": "Validation Failed" })),
            },
            ("PATCH", ["issues", number]) => {
                let Some(issue) = number.parse().ok().and_then(|number: u64| self.issue(number)) else {
                    return not_found;
                };
                issue.title = text("title").unwrap_or_else(|| issue.title.clone());
                issue.body = text("body").or_else(|| issue.body.clone());
                issue.open = text("state").map_or(issue.open, |state| state == "open");
                (200, issue.json())
            }
            ("GET" | "POST", ["issues", number, "comments"]) => {
                let Some(number) = number.parse().ok().filter(|number| self.issue(*number).is_some()) else {
                    return not_found;
                };
                match text("body") {
                    // The oldest come first.
                    _ if method == "GET" => {
                        let of_issue = self.comments.iter().filter(|comment| comment.issue == number);
                        (200, query.page(of_issue.map(Comment::json)))
                    }
                    Some(body) => (201, self.comment(BOT, number, &body).json()),
                    None => (422, json!({ "message": "Validation Failed" })),
                }
            }
            ("PATCH", ["issues", "comments", id]) => {
                let found = self.comments.iter_mut().find(|comment| comment.id.to_string() == *id);
                let (Some(comment), Some(body)) = (found, text("body")) else { return not_found };
                comment.body = body;
                (200, comment.json())
            }
            _ => not_found,
        }
    }

    fn issue(&mut self, number: u64) -> Option<&mut Issue> {
        self.issues.iter_mut().find(|issue| issue.number == number)
    }
}

impl Issue {
    fn json(&self) -> Value {
        let state = if self.open { "open" } else { "closed" };
        let mut json = json!({
            "id": 1_000_000 + self.number, "number": self.number, "title": self.title, "body": self.body,
            "state": state, "user": { "login": self.author },
        });
        if self.pull_request {
            json["pull_request"] = json!({});
        }
        json
    }
}

impl Comment {
    fn json(&self) -> Value {
        json!({ "id": self.id, "body": self.body, "user": { "login": self.author } })
    }
}

struct Query(Vec<(String, String)>);

impl Query {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn page(&self, all: impl Iterator<Item = Value>) -> Value {
        let number = |name: &str, default: usize| self.get(name).and_then(|n| n.parse().ok()).unwrap_or(default);
        let size = number("per_page", 30).min(100);
        all.skip(number("page", 1).saturating_sub(1) * size).take(size).collect()
    }
}

async fn serve(client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut client = BufReader::new(client);
    while let Some(head) = Head::read(&mut client).await? {
        let Length::Bytes(length) = head.length() else { return Ok(()) };
        if head.get("expect").is_some() {
            client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let mut body = vec![0; usize::try_from(length).unwrap_or(0)];
        client.read_exact(&mut body).await?;
        let (status, answered) = shared.answer(&head, &body);
        let json = [("Content-Type", "application/json; charset=utf-8")];
        client.write_all(&answer(status, &json, &answered.to_string())).await?;
    }
    Ok(())
}

impl Shared {
    fn answer(&self, head: &Head, body: &[u8]) -> (u16, Value) {
        let (method, target) = (head.word(0), head.word(1));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = Query(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect());
        let path: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let mut state = self.state.lock().expect("the state");
        let (status, answered) = if head.get("authorization") != Some(&format!("Bearer {}", self.token)) {
            (401, json!({ "message": "Bad credentials" }))
        } else if body.is_empty() {
            self.route(&mut state, method, &path, &query, &Value::Null)
        } else {
            match serde_json::from_slice::<Value>(body) {
                Err(_) => (400, json!({ "message": "Problems parsing JSON" })),
                Ok(body) if body["body"].as_str().is_some_and(|text| text.chars().count() > LONGEST_BODY) => {
                    (422, json!({ "message": "Validation Failed", "errors": ["body is too long"] }))
                }
                Ok(body) => self.route(&mut state, method, &path, &query, &body),
            }
        };
        state.log.push(format!("{method} {target} {status}"));
        (status, answered)
    }

    fn route(&self, state: &mut State, method: &str, path: &[&str], query: &Query, body: &Value) -> (u16, Value) {
        match path {
            ["repos", owner, name, rest @ ..] if format!("{owner}/{name}") == self.repository => {
                state.handle(method, rest, query, body)
            }
            _ => (404, json!({ "message": "Not Found" })),
        }
    }
}
