//! Services without a check that are asked over HTTP before and after a restart.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use super::processes::process;
use super::system;
use super::system::System;

/// A server that answers the first request well, and later ones with these statuses, the last one again and again.
fn server(later: &'static [u16]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let statuses =
            std::iter::once(&200).chain(later).chain(std::iter::repeat(&later[later.len() - 1]));
        for status in statuses {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 512]);
            let _ = write!(stream, "HTTP/1.1 {status} X\r\n\r\n");
        }
    });
    address
}

/// A system with a unit that listens at `address`, with another process after a restart.
fn serving(address: SocketAddr) -> System {
    let system = system();
    let port = address.port();
    for pid in [70, 72] {
        process(
            &system,
            pid,
            "shop.service",
            "/usr/bin/python3.11",
            "/srv/shop/venv/bin/python3 app.py",
        );
        system.relink(&format!("/proc/{pid}/fd/3"), "socket:[4711]");
        let local = u32::from_ne_bytes([127, 0, 0, 1]);
        let line = format!("0: {local:08X}:{port:04X} 00000000:0000 0A 0:0 00:0 0 0 0 4711 1 0\n");
        system.write(&format!("/proc/{pid}/net/tcp"), &line);
    }
    let (proc, next) = (system.path("/proc"), system.path("/next"));
    System::shell(&format!("mv {proc}/72 {next}"));
    system.make_dir("/run/systemd/system");
    system.script(
        "/usr/bin/systemctl",
        &format!(
            "case \"$*\" in *restart*) rm -r {proc}/70; mv {next} {proc}/72;; esac
             pid=70; [ -e {proc}/70 ] || pid=72
             printf 'LoadState=loaded\\nActiveState=active\\nSubState=running\\nType=simple\\nMainPID=%s\\n' $pid"
        ),
    );
    system.run(&["register", "/srv/shop/venv"]).expect(0);
    system
}

fn configure(system: &System, text: &str) {
    let text = format!("stable-for = 0\nservice-timeout = 1\n{text}");
    system.write("/etc/venvguard/config.toml", &text);
}

#[test]
fn a_service_that_answers_with_an_error_after_a_restart_is_reported_with_its_answer_before() {
    let address = server(&[500]);
    let system = serving(address);
    configure(&system, "probe = true\n");
    let said = system.run(&["restart", "shop"]).expect(1);
    let told = format!(
        "systemd:shop.service: {address} answers a request for / with HTTP status 500; before, {address} answered with 200"
    );
    assert!(said.stderr.contains(&told), "{told}: {}", said.stderr);
}

#[test]
fn a_service_that_answers_as_well_as_before_is_fine() {
    let system = serving(server(&[503, 404]));
    configure(&system, "probe = true\n");
    system.run(&["restart", "shop"]).expect(0);
}

#[test]
fn nothing_is_asked_unless_somebody_wants_it_and_there_is_no_check() {
    for (configuration, options) in [
        ("", &["--probe", ""][..]),
        ("probe = true\n", &["--probe", "false"]),
        ("probe = true\n", &["--check", "true"]),
    ] {
        let system = serving(server(&[500]));
        configure(&system, configuration);
        system.run(&[&["register", "/srv/shop/venv"], options].concat()).expect(0);
        system.run(&["restart", "shop"]).expect(0);
    }
    let system = serving(server(&[500]));
    configure(&system, "");
    system.run(&["register", "/srv/shop/venv", "--probe", "true"]).expect(0);
    let shown = system.run(&["show", "shop", "--json"]).expect(0).json();
    assert_eq!(shown["venvs"][0]["probe"], true);
    assert!(system.run(&["show", "shop"]).expect(0).stdout.contains("probe: true"));
    system.run(&["restart", "shop"]).expect(1);
    system.run(&["register", "/srv/shop/venv", "--probe", "often"]).expect(2);
}

#[test]
fn a_declaration_may_ask_for_it() {
    let system = serving(server(&[500]));
    configure(&system, "");
    system.run(&["unregister", "shop"]).expect(0);
    system.write("/etc/venvguard/venvs.d/shop.toml", "path = \"/srv/shop/venv\"\nprobe = true\n");
    system.run(&["restart", "shop"]).expect(1);
}
