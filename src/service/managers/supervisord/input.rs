//! Properties of supervisord's answers and of its configuration. See `crate::input`.

use std::path::Path;

use proptest::prelude::*;

use super::daemon::{State, SupervisordError, name_in};
use super::xml::{Reply, Value};
use super::{configuration, http, xml};
use crate::input::{bulky, few, is_harmless, lossy, near, near_text};

const XML: &[&str] = &[
    "<?xml version='1.0'?>\n<methodResponse>\n<params>\n<param>\n<value><array><data>\n<value><struct>\n\
     <member>\n<name>name</name>\n<value><string>dj</string></value>\n</member>\n<member>\n<name>group</name>\n\
     <value>dj</value>\n</member>\n<member>\n<name>statename</name>\n<value><string>RUNNING</string></value>\n\
     </member>\n<member>\n<name>pid</name>\n<value><int>380</int></value>\n</member>\n<member>\n<name>spawnerr</name>\n\
     <value><string></string></value>\n</member>\n</struct></value>\n</data></array></value>\n</param>\n</params>\n</methodResponse>\n",
    "<methodResponse><fault><value><struct><member><name>faultCode</name><value><int>10</int></value></member>\
     <member><name>faultString</name><value><string>BAD_NAME: nix</string></value></member></struct></value></fault></methodResponse>",
];

const XML_WORDS: &[&str] = &[
    "<methodResponse>",
    "</methodResponse>",
    "<params><param>",
    "</param></params>",
    "<value>",
    "</value>",
    "<array><data>",
    "</data></array>",
    "<struct>",
    "</struct>",
    "<member>",
    "</member>",
    "<name>",
    "</name>",
    "<int>",
    "</int>",
    "1",
    "<string>",
    "</string>",
    "&lt;",
    "&#27;",
    "&x;",
    "<!DOCTYPE a [<!ENTITY x \"y\">]>",
    "<![CDATA[",
    "]]>",
    "<!--",
    "-->",
    "<a b='c'",
    " d='e'",
    " xmlns:f='g'",
    ">",
    "/>",
    "statename",
];

const HTTP: &[&str] = &[
    "HTTP/1.1 200 OK\r\nServer: Medusa/1.12\r\nContent-Length: 5\r\n\r\nhelloREST",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    "HTTP/1.0 401 Unauthorized\r\nServer: x\r\n\r\nhello",
];

const HTTP_WORDS: &[&str] = &[
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.0 500 x\r\n",
    "Content-Length: ",
    "Transfer-Encoding: chunked\r\n",
    "5",
    "\r\n",
    "\r\n\r\n",
    "ffffffffffffffff",
    "0",
    ";",
    "2\r\nhe\r\n",
    "-1",
    "4194304",
    "400000\r\n",
    "hello",
];

const CONFIGURATION: &[&str] = &[
    "[unix_http_server]\nfile=/var/run/supervisor.sock   ; (the path)\nchmod=0700\nusername = bob\n\
     password = {SHA}82a\n[supervisorctl]\nusername = bob\npassword = pa;ss=word\n",
];

const CONFIGURATION_WORDS: &[&str] = &[
    "[unix_http_server]\n",
    "[supervisorctl]\n",
    "[",
    "]",
    "file",
    "=",
    ":",
    "/var/run/",
    "%(here)s",
    "%%",
    "../",
    "x.sock",
    "\n",
    " ;",
    "username",
    "password",
];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        "[ -~éä]{1,12}".prop_map(Value::Text),
        any::<i64>().prop_map(Value::Number),
        any::<bool>().prop_map(Value::Truth),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
            proptest::collection::btree_map("[a-z]{1,4}", inner, 0..4).prop_map(Value::Record),
        ]
    })
}

/// As supervisord writes a value.
fn written(value: &Value) -> String {
    let inner = match value {
        Value::Text(text) => {
            let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            format!("<string>{text}</string>")
        }
        Value::Number(number) => format!("<int>{number}</int>"),
        Value::Truth(truth) => format!("<boolean>{}</boolean>", i32::from(*truth)),
        Value::List(values) => {
            format!(
                "<array><data>{}</data></array>",
                values.iter().map(written).collect::<String>()
            )
        }
        Value::Record(members) => {
            let member =
                |(name, value)| format!("<member><name>{name}</name>{}</member>", written(value));
            format!("<struct>{}</struct>", members.iter().map(member).collect::<String>())
        }
    };
    format!("<value>{inner}</value>")
}

proptest! {
    #[test]
    fn answers(bytes in near(XML, XML_WORDS)) {
        match xml::reply(&bytes) {
            Some(Reply::Value(value)) => {
                let records = if let Value::List(all) = value { all } else { vec![value] };
                for record in records {
                    if let Some(name) = name_in(&record) {
                        prop_assert!(is_harmless(&name) && !name.starts_with('-'));
                    }
                    let condition = State(record).condition();
                    prop_assert!(is_harmless(&condition.state), "{:?}", condition.state);
                }
            }
            Some(Reply::Fault { code, text }) => {
                let error = SupervisordError::Fault { method: "x", code, text };
                prop_assert!(is_harmless(&error.to_string()));
            }
            None => {}
        }
    }

    #[test]
    fn a_value_is_read_as_it_was_written(value in value()) {
        let written = written(&value);
        let answer = format!("<methodResponse><params><param>{written}</param></params></methodResponse>");
        prop_assert_eq!(xml::reply(answer.as_bytes()), Some(Reply::Value(value)));
    }

    #[test]
    fn http_answers(bytes in near(HTTP, HTTP_WORDS), piece in 1_usize..40) {
        let mut whole = Some(bytes.clone());
        let at_once = http::answer(|| Ok(whole.take().unwrap_or_default()));
        let mut pieces = bytes.chunks(piece).map(<[u8]>::to_vec);
        let in_pieces = http::answer(|| Ok(pieces.next().unwrap_or_default()));
        prop_assert_eq!(at_once.ok(), in_pieces.ok(), "the size of the pieces makes no difference");
    }

    #[test]
    fn configurations(text in near_text(CONFIGURATION, CONFIGURATION_WORDS)) {
        if let Some(server) = configuration::read(&text, Path::new("/etc/supervisor/supervisord.conf")) {
            prop_assert!(server.socket.is_absolute());
            prop_assert!(!server.socket.components().any(|part| part.as_os_str() == ".."));
        }
    }
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn long_answers(xml in bulky(XML_WORDS), answer in bulky(HTTP_WORDS), text in bulky(CONFIGURATION_WORDS)) {
        xml::reply(&xml);
        let mut pieces = answer.chunks(4096).map(<[u8]>::to_vec);
        let _ = http::answer(|| Ok(pieces.next().unwrap_or_default()));
        configuration::read(&lossy(text), Path::new("/etc/supervisord.conf"));
    }
}
