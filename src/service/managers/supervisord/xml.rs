//! XML-RPC: writes calls and reads answers.

use std::collections::BTreeMap;

use roxmltree::{Document, Node};

/// How deep values may nest; supervisord uses three levels.
const DEPTH: usize = 8;

/// A value of XML-RPC. Only the types that supervisord uses are distinguished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(i64),
    Truth(bool),
    List(Vec<Value>),
    Record(BTreeMap<String, Value>),
}

/// The result of a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Value(Value),
    Fault { code: i64, text: String },
}

impl Value {
    pub(super) fn text(&self, member: &str) -> Option<&str> {
        match self.member(member)? {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn number(&self, member: &str) -> Option<i64> {
        match self.member(member)? {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn list(&self, member: &str) -> Option<&[Self]> {
        match self.member(member)? {
            Self::List(values) => Some(values),
            _ => None,
        }
    }

    fn member(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Record(members) => members.get(name),
            _ => None,
        }
    }
}

/// The text of a call.
pub(super) fn call(method: &str, arguments: &[Value]) -> String {
    let mut text =
        format!("<?xml version='1.0'?><methodCall><methodName>{method}</methodName><params>");
    for argument in arguments {
        let value = match argument {
            Value::Text(argument) => format!("<string>{}</string>", escaped(argument)),
            Value::Number(number) => format!("<int>{number}</int>"),
            Value::Truth(truth) => format!("<boolean>{}</boolean>", i32::from(*truth)),
            // No method that we call takes such a value.
            Value::List(_) | Value::Record(_) => continue,
        };
        text.push_str("<param><value>");
        text.push_str(&value);
        text.push_str("</value></param>");
    }
    text.push_str("</params></methodCall>");
    text
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Reads an answer; `None` if it is not one.
pub(super) fn reply(bytes: &[u8]) -> Option<Reply> {
    // Supervisord copies escape sequences from a log into its answer, which then is not valid
    // XML.
    let legal = |c: char| !c.is_control() || matches!(c, '\t' | '\n' | '\r');
    let text: String = String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| if legal(c) && !matches!(c, '\u{fffe}' | '\u{ffff}') { c } else { '\u{fffd}' })
        .collect();
    let document = Document::parse(&text).ok()?;
    let response = document.root_element();
    if let Some(fault) = child(response, "fault") {
        let fault = value(child(fault, "value")?, DEPTH)?;
        let text = fault.text("faultString").unwrap_or_default().to_string();
        return Some(Reply::Fault { code: fault.number("faultCode")?, text });
    }
    let parameter = child(child(response, "params")?, "param")?;
    value(child(parameter, "value")?, DEPTH).map(Reply::Value)
}

fn child<'a, 'b>(node: Node<'a, 'b>, name: &str) -> Option<Node<'a, 'b>> {
    node.children().find(|child| child.has_tag_name(name))
}

fn value(node: Node, depth: usize) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    let Some(typed) = node.first_element_child() else {
        return Some(Value::Text(text(node)));
    };
    Some(match typed.tag_name().name() {
        "int" | "i4" => Value::Number(text(typed).trim().parse().ok()?),
        "boolean" => Value::Truth(text(typed).trim() == "1"),
        "array" => {
            let elements =
                child(typed, "data")?.children().filter(|node| node.has_tag_name("value"));
            Value::List(elements.map(|node| value(node, depth)).collect::<Option<_>>()?)
        }
        "struct" => {
            let members = typed.children().filter(|node| node.has_tag_name("member"));
            let pair =
                |node| Some((text(child(node, "name")?), value(child(node, "value")?, depth)?));
            Value::Record(members.map(pair).collect::<Option<_>>()?)
        }
        _ => Value::Text(text(typed)),
    })
}

fn text(node: Node) -> String {
    node.children().filter_map(|child| child.text()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_escaped() {
        let text =
            call("supervisor.startProcess", &[Value::Text("a<&>b".into()), Value::Truth(false)]);
        assert_eq!(
            text,
            "<?xml version='1.0'?><methodCall><methodName>supervisor.startProcess</methodName>\
             <params><param><value><string>a&lt;&amp;&gt;b</string></value></param>\
             <param><value><boolean>0</boolean></value></param></params></methodCall>"
        );
    }

    #[test]
    fn supervisords_answers_are_understood() {
        // Shortened from supervisord 4.2.5.
        let answer = "<?xml version='1.0'?>\n<methodResponse>\n<params>\n<param>\n<value><array><data>\n\
            <value><struct>\n<member>\n<name>name</name>\n<value><string>dj</string></value>\n</member>\n\
            <member>\n<name>pid</name>\n<value><int>380</int></value>\n</member>\n\
            <member>\n<name>spawnerr</name>\n<value><string></string></value>\n</member>\n\
            <member>\n<name>inuse</name>\n<value><boolean>1</boolean></value>\n</member>\n\
            </struct></value>\n</data></array></value>\n</param>\n</params>\n</methodResponse>\n";
        let Some(Reply::Value(Value::List(programs))) = reply(answer.as_bytes()) else { panic!() };
        assert_eq!(programs[0].text("name"), Some("dj"));
        assert_eq!(programs[0].number("pid"), Some(380));
        assert_eq!(programs[0].text("spawnerr"), Some(""));
        assert_eq!(programs[0].member("inuse"), Some(&Value::Truth(true)));
    }

    #[test]
    fn a_fault_is_distinguished_from_a_value() {
        let answer = "<?xml version='1.0'?>\n<methodResponse>\n<fault>\n<value><struct>\n<member>\n\
            <name>faultCode</name>\n<value><int>10</int></value>\n</member>\n<member>\n\
            <name>faultString</name>\n<value><string>BAD_NAME: nix</string></value>\n</member>\n\
            </struct></value>\n</fault>\n</methodResponse>\n";
        let fault = Reply::Fault { code: 10, text: "BAD_NAME: nix".into() };
        assert_eq!(reply(answer.as_bytes()), Some(fault));
    }

    #[test]
    fn a_log_with_terminal_escapes_is_readable() {
        let answer = b"<methodResponse><params><param><value><string>\x1b[31mred\xff &lt;1&gt;\
            </string></value></param></params></methodResponse>";
        let text = Value::Text("\u{fffd}[31mred\u{fffd} <1>".into());
        assert_eq!(reply(answer), Some(Reply::Value(text)));
    }

    #[test]
    fn hostile_answers_are_refused() {
        let deep = "<value><array><data>".repeat(2000) + &"</data></array></value>".repeat(2000);
        let deep =
            format!("<methodResponse><params><param>{deep}</param></params></methodResponse>");
        let entities = "<!DOCTYPE a [<!ENTITY x \"y\">]><methodResponse><params><param><value>&x;\
            </value></param></params></methodResponse>";
        for answer in [deep.as_str(), entities, "", "<html></html>", "<methodResponse/>"] {
            assert_eq!(reply(answer.as_bytes()), None);
        }
    }
}
