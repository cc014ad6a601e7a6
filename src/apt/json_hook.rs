//! The JSON hooks of `apt`: before its question, apt tells a hook over a socket what the run will
//! do, in JSON-RPC 2.0 (`doc/json-hooks-protocol.md` in apt's source). Each message is one line,
//! and an empty line follows it.

use std::io::{self, BufRead, BufReader, Read, Write};

use serde::Deserialize;

use super::Action;

/// A full upgrade of a large system takes a few MiB: apt describes each package with its sources.
const LIMIT: u64 = 64 << 20;

/// The message that apt sends after its summary and before its question.
const STATISTICS: &str = "org.debian.apt.hooks.install.statistics";
const BYE: &str = "org.debian.apt.hooks.bye";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Message {
    method: String,
    id: u64,
    params: Parameters,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Parameters {
    versions: Vec<String>,
    packages: Vec<Package>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Package {
    name: String,
    mode: String,
    versions: Versions,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Versions {
    install: Option<PackageVersion>,
    current: Option<PackageVersion>,
}

#[derive(Debug, Deserialize)]
struct PackageVersion {
    version: String,
}

/// Talks to apt until it says goodbye. `show` gets the actions on Python's packages, if apt is about
/// to ask its question.
pub(crate) fn converse<S>(socket: &S, mut show: impl FnMut(Vec<Action>)) -> io::Result<()>
where
    for<'a> &'a S: Read + Write,
{
    let mut source = BufReader::new(socket.take(LIMIT));
    let mut is_greeted = false;
    let mut line = Vec::new();
    while source.read_until(b'\n', &mut line)? > 0 {
        let message = serde_json::from_slice::<Message>(&line).unwrap_or_default();
        let is_separator = line == b"\n";
        line.clear();
        if is_separator {
            continue;
        }
        if !is_greeted {
            // apt fails if its first message has no answer, so each gets one.
            let mut answer = socket;
            answer.write_all(greeting(&message).as_bytes())?;
            is_greeted = true;
        } else if message.method == STATISTICS {
            show(message.params.packages.into_iter().filter_map(action).collect());
        } else if message.method == BYE {
            break;
        }
    }
    Ok(())
}

/// The answer to the first message: the newest version of the protocol that both sides know.
fn greeting(hello: &Message) -> String {
    let knows = |version| hello.params.versions.iter().any(|known| known == version);
    let version = if knows("0.1") && !knows("0.2") { "0.1" } else { "0.2" };
    let result = serde_json::json!({"version": version});
    format!("{}\n\n", serde_json::json!({"jsonrpc": "2.0", "id": hello.id, "result": result}))
}

fn action(package: Package) -> Option<Action> {
    let unpacks = match package.mode.as_str() {
        "install" | "upgrade" | "downgrade" | "reinstall" => true,
        "deinstall" | "purge" => false,
        _ => return None,
    };
    let Versions { install, current } = package.versions;
    let to = if unpacks { Some(install?.version) } else { None };
    let from = current.map(|one| one.version);
    let action = Action { package: package.name, from, to, unpacks };
    action.is_on_python().then_some(action)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    const HELLO: &str = r#"{"jsonrpc":"2.0","method":"org.debian.apt.hooks.hello","id":7,"params":{"versions":["0.1","0.2"]}}"#;
    const BYE: &str = r#"{"jsonrpc":"2.0","method":"org.debian.apt.hooks.bye","params":{}}"#;

    /// Sends messages as apt does, and returns the answers and the actions that were shown.
    fn told(messages: &[&str]) -> (String, Vec<Vec<Action>>) {
        let (mut apt, hook) = UnixStream::pair().unwrap();
        for message in messages {
            write!(apt, "{message}\n\n").unwrap();
        }
        apt.shutdown(std::net::Shutdown::Write).unwrap();
        let mut shown = Vec::new();
        converse(&hook, |actions| shown.push(actions)).unwrap();
        drop(hook);
        let mut answers = String::new();
        apt.read_to_string(&mut answers).unwrap();
        (answers, shown)
    }

    fn statistics(packages: &str) -> String {
        format!(
            r#"{{"jsonrpc":"2.0","method":"{STATISTICS}","params":{{"command":"upgrade","search-terms":[],"packages":[{packages}]}}}}"#
        )
    }

    #[test]
    fn the_actions_on_python_are_shown_once() {
        let message = statistics(
            r#"{"id":1,"name":"python3.13","architecture":"amd64","mode":"upgrade","automatic":true,
              "versions":{"current":{"id":1,"version":"3.13.5-2"},"install":{"id":2,"version":"3.13.5-2+deb13u1","origins":[{}]}}},
             {"id":2,"name":"python3.11-minimal","mode":"purge","versions":{"current":{"version":"3.11.2-6"}}},
             {"id":3,"name":"python3.12","mode":"keep","versions":{"current":{"version":"3.12.1-1"}}},
             {"id":4,"name":"bash","mode":"upgrade","versions":{"install":{"version":"5.3"}}}"#,
        )
        .replace('\n', "");
        let pre_prompt = message.replace("statistics", "pre-prompt");
        let (answers, shown) = told(&[HELLO, &pre_prompt, &message, BYE]);
        assert_eq!(answers, "{\"id\":7,\"jsonrpc\":\"2.0\",\"result\":{\"version\":\"0.2\"}}\n\n");
        let action = |package: &str, from: &str, to: Option<&str>| Action {
            package: package.into(),
            from: Some(from.into()),
            to: to.map(Into::into),
            unpacks: to.is_some(),
        };
        assert_eq!(
            shown,
            [[
                action("python3.13", "3.13.5-2", Some("3.13.5-2+deb13u1")),
                action("python3.11-minimal", "3.11.2-6", None),
            ]]
        );
    }

    #[test]
    fn every_first_message_has_an_answer() {
        for hello in [HELLO, "{", "{\"method\":7}", "[]"] {
            let (answers, shown) = told(&[hello]);
            assert!(answers.contains("0.2") && answers.ends_with("\n\n"), "{hello}: {answers}");
            assert!(!answers.contains("error") && shown.is_empty(), "{hello}: {answers}");
        }
        let old = HELLO.replace(",\"0.2\"", "");
        assert!(told(&[&old]).0.contains("\"0.1\""));
    }

    #[test]
    fn names_and_versions_that_are_none_are_left_out() {
        for package in [
            r#"{"name":"python3\u001b[2J","mode":"install","versions":{"install":{"version":"3.13"}}}"#,
            r#"{"name":"python3","mode":"install","versions":{"install":{"version":"3.13\ufffd"}}}"#,
            r#"{"name":"python3","mode":"install","versions":{}}"#,
        ] {
            let (_, shown) = told(&[HELLO, &statistics(package), BYE]);
            assert_eq!(shown, [[]], "{package}");
        }
    }
}
