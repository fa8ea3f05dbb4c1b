//! The TUN device, the stack and the loop against the kernel, in a network namespace of their own.
//!
//! In: nothing; needs root, /dev/net/tun and iproute2, and passes with a message where one is
//! missing. The outer test makes a namespace, runs the inner one inside it through `ip netns exec`,
//! and removes it whatever happens. Touches nothing of the machine's own network.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_macros,
    reason = "a test"
)]

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::IpAddr;
use std::net::{Shutdown, TcpStream};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use headwater::internals::device::Device;
use headwater::internals::device::pcap::Pcap;
use headwater::internals::device::tun::{Tun, TunConfig, TunError, TunKind};
use headwater::internals::host::{Machine, Transmit};
use headwater::internals::runtime::{Hooks, OsClock, Runtime, Signal, Stopped};
use headwater::internals::stack::{Stack, StackConfig, TcpError, TcpEvent, TcpId};
use headwater::internals::time::{Instant, Now};

const KERNEL4: &str = "10.91.0.1";
const KERNEL6: &str = "fd91::1";
const STACK4: &str = "10.91.0.2";
const STACK6: &str = "fd91::2";

/// Set where the inner tests may run: inside the namespace.
const INSIDE: &str = "HEADWATER_TEST_NAMESPACE";

/// Bytes that each family's TCP connection carries there and back.
const ECHOED_BYTES: u32 = 3_000_000;

/// A namespace that goes with its owner.
struct Namespace(String);

impl Namespace {
    fn new() -> Option<Self> {
        let name = format!("hw-tun-{}", std::process::id());
        let made = Command::new("ip").args(["netns", "add", &name]).output();
        made.is_ok_and(|output| output.status.success())
            .then_some(Self(name))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

#[test]
fn kernel_and_stack_talk_through_a_tun() {
    if !rustix::process::geteuid().is_root() || !Path::new("/dev/net/tun").exists() {
        println!("skipped: needs root and /dev/net/tun");
        return;
    }
    let Some(namespace) = Namespace::new() else {
        println!("skipped: cannot make a network namespace");
        return;
    };
    let inner = Command::new("ip")
        .args(["netns", "exec", &namespace.0])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "inside_the_namespace",
            "--ignored",
            "--nocapture",
        ])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        inner.status.success(),
        "{}\n{}",
        text(&inner.stdout),
        text(&inner.stderr)
    );
    assert!(
        text(&inner.stdout).contains("1 passed"),
        "{}",
        text(&inner.stdout)
    );
    print!("{}", text(&inner.stdout));
}

/// The test runs in a namespace that another test made.
fn assert_inside() {
    assert!(
        std::env::var_os(INSIDE).is_some(),
        "must not run in the machine's own namespace"
    );
}

#[test]
#[ignore = "run by kernel_and_stack_talk_through_a_tun, in its namespace"]
fn inside_the_namespace() {
    assert_inside();
    run("ip link set lo up");
    run(&format!("ip addr add {KERNEL4}/32 dev lo"));
    run(&format!("ip -6 addr add {KERNEL6}/128 dev lo nodad"));
    for kind in [TunKind::Plain, TunKind::Offload] {
        exchange(kind);
        a_device_that_is_down_loses_packets_no_more(kind);
        routes_stay_although_the_device_is_set_down_and_up(kind);
    }
    a_route_that_rejects_packets_is_not_replaced();
}

fn exchange(kind: TunKind) {
    let tun = open(kind, "hw0", &[STACK4, STACK6]).unwrap();
    assert_eq!(tun.offloads(), kind == TunKind::Offload);
    let settings = run("ip -d link show dev hw0");
    assert!(
        settings.contains("mtu 1500") && settings.contains("qlen 2000"),
        "{settings}"
    );
    refusals(kind);

    let capture = tempfile::NamedTempFile::new().unwrap();
    let tapped = Pcap::new(tun, capture.reopen().unwrap()).unwrap();
    let clock = OsClock::new();
    let mut runtime = Runtime::new(clock, tapped).unwrap();
    let mut echo = Echo::new(clock.now().instant);
    let kernel = std::thread::spawn(kernel_side);
    let mut until = Until(|| kernel.is_finished());
    assert_eq!(runtime.run(&mut echo, &mut until).unwrap(), Stopped::ByHook);
    kernel.join().unwrap();
    // Nothing unrequested arrived: no solicitations, no listener reports.
    assert_eq!(
        echo.stack.counters().drops.total(),
        0,
        "{:?}",
        echo.stack.counters()
    );
    assert_eq!(runtime.device().send_drops(), 0);
    assert_eq!(runtime.device().receive_drops(), 0);
    assert_eq!(echo.joined > 0, kind == TunKind::Offload);
    // Through an offloading device segments are coalesced both ways, in either family.
    let single_ways = if kind == TunKind::Offload { 0 } else { 4 };
    tshark_reads(capture.path(), single_ways);

    let mut raise = Until(|| {
        signal_hook::low_level::raise(signal_hook::consts::SIGTERM).unwrap();
        false
    });
    let stopped = runtime.run(&mut echo, &mut raise).unwrap();
    assert_eq!(stopped, Stopped::BySignal(Signal::Terminate));
}

fn a_device_that_is_down_loses_packets_no_more(kind: TunKind) {
    let mut down = open(kind, "hw0", &[STACK4]).unwrap();
    run("ip link set dev hw0 down");
    down.send_packet(&[0x45; 20]).unwrap();
    assert_eq!(down.send_drops(), 1);
    assert!(down.receive(&mut [0; 100]).unwrap().is_none());
}

fn routes() -> Vec<String> {
    let all = run("ip route show dev hw0") + &run("ip -6 route show dev hw0");
    let words = all.lines().filter_map(|line| line.split(' ').next());
    words.map(str::to_owned).collect()
}

fn down_and_up() {
    run("ip link set dev hw0 down");
    assert_eq!(routes(), Vec::<String>::new(), "the kernel deletes them");
    run("ip link set dev hw0 up");
}

/// Waits for a thread: as long as necessary, on a busy machine.
fn await_routes(want: &[&str]) {
    for _ in 0..2000 {
        if routes() == want {
            return;
        }
        std::thread::yield_now();
    }
    panic!("{:?}, not {want:?}", routes());
}

fn routes_stay_although_the_device_is_set_down_and_up(kind: TunKind) {
    let device = open(kind, "hw0", &[STACK4, STACK6]).unwrap();
    assert_eq!(routes(), [STACK4, STACK6]);
    down_and_up();
    await_routes(&[STACK4, STACK6]);
    let withdrawn: [IpAddr; 1] = [STACK4.parse().unwrap()];
    let kept = device.routes().unwrap();
    kept.set(&withdrawn, false).unwrap();
    kept.set(&withdrawn, false).unwrap();
    assert_eq!(routes(), [STACK6]);
    down_and_up();
    await_routes(&[STACK6]);
    kept.set(&withdrawn, true).unwrap();
    assert_eq!(routes(), [STACK4, STACK6]);
    drop(device);
    assert!(kept.set(&withdrawn, true).is_err(), "the device is gone");
}

fn a_route_that_rejects_packets_is_not_replaced() {
    run(&format!("ip route add blackhole {STACK4}/32"));
    let error = open(TunKind::Plain, "hw0", &[STACK4]).unwrap_err();
    assert!(
        matches!(&error, TunError::RoutedElsewhere { device, .. } if device == "another destination"),
        "{error}"
    );
    assert!(run("ip route show").contains("blackhole"));
    run(&format!("ip route del blackhole {STACK4}/32"));
}

fn open(kind: TunKind, name: &str, addresses: &[&str]) -> Result<Tun, TunError> {
    let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    let config = TunConfig::builder(name).addresses(addresses).kind(kind);
    Tun::open(&config.build()?)
}

fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {text}{error}");
    text
}

/// Each way of not getting a device has its own error. `hw0` is open and has the stack's routes.
fn refusals(kind: TunKind) {
    let open = |name, address| open(kind, name, &[address]).unwrap_err();
    assert!(matches!(open("hw0", STACK4), TunError::Busy { .. }));
    assert!(matches!(open("lo", "10.91.0.9"), TunError::NotTun { .. }));
    for address in [KERNEL4, KERNEL6] {
        let error = open("hw1", address);
        assert!(
            matches!(&error, TunError::LocalAddress { device, .. } if device == "lo"),
            "{error}"
        );
    }
    for address in [STACK4, STACK6] {
        let error = open("hw1", address);
        assert!(
            matches!(&error, TunError::RoutedElsewhere { device, .. } if device == "hw0"),
            "{error}"
        );
    }
    let links = run("ip -o link show");
    assert!(
        !links.contains("hw1"),
        "a refused device was left behind: {links}"
    );

    let user = Command::new("setpriv")
        .args(["--reuid", "65534", "--clear-groups"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "without_rights", "--ignored"])
        .env(INSIDE, "1")
        .output();
    match user {
        Ok(user) if user.status.code() != Some(126) => {
            let text = String::from_utf8_lossy(&user.stdout);
            assert!(text.contains("1 passed"), "{text}");
        }
        Ok(_) | Err(_) => println!("not checked: cannot run as an ordinary user"),
    }
}

#[test]
#[ignore = "run by inside_the_namespace, as an ordinary user"]
fn without_rights() {
    assert_inside();
    for kind in [TunKind::Plain, TunKind::Offload] {
        let error = open(kind, "hw1", &["10.91.0.9"]).unwrap_err();
        assert!(matches!(error, TunError::NoPermission), "{error}");
    }
}

/// The traffic of the namespace's kernel: pings and echoes over TCP, both families.
fn kernel_side() {
    for address in [STACK4, STACK6] {
        run(&format!("ping -n -c 3 -i 0.01 -W 5 -s 1000 {address}"));
        let mut stream = TcpStream::connect((address, 7)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let mut reader = stream.try_clone().unwrap();
        let sent: Vec<u8> = (0..ECHOED_BYTES).map(|n| n.to_le_bytes()[1]).collect();
        let got = std::thread::spawn(move || {
            let mut got = Vec::new();
            reader.read_to_end(&mut got).unwrap();
            got
        });
        stream.write_all(&sent).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert!(
            got.join().unwrap() == sent,
            "{address}: other bytes came back"
        );
    }
}

fn tshark_reads(file: &Path, single_ways: usize) {
    let run = Command::new("tshark")
        .args([
            "-r",
            &file.to_string_lossy(),
            "-T",
            "fields",
            "-e",
            "_ws.col.Protocol",
        ])
        .args(["-e", "tcp.checksum.status", "-e", "tcp.checksum"])
        .args(["-o", "tcp.check_checksum:TRUE"])
        .output();
    let Ok(run) = run else {
        println!("not checked: tshark is missing");
        return;
    };
    let text = String::from_utf8(run.stdout).unwrap();
    let mut protocols = BTreeMap::<&str, usize>::new();
    for line in text.lines() {
        let mut fields = line.split('\t');
        let (protocol, status, checksum) = (fields.next(), fields.next(), fields.next());
        let protocol = protocol.unwrap();
        *protocols.entry(protocol).or_default() += 1;
        // tshark's word for a good checksum is 1. It wants 0x0000 where the kernel writes the other
        // zero of ones' complement, 0xffff (RFC 1624 §3): one packet in 65,536.
        let good = status == Some("1") || checksum == Some("0xffff");
        assert!(good || protocol.starts_with("ICMP"), "{line}");
    }
    assert_eq!(
        (protocols.get("ICMP"), protocols.get("ICMPv6")),
        (Some(&6), Some(&6))
    );
    let full_packets = usize::try_from(ECHOED_BYTES / 1500).unwrap();
    assert!(
        protocols.values().sum::<usize>() > single_ways * full_packets,
        "{protocols:?}"
    );
}

/// Ends the loop when the closure says so; asked every millisecond.
struct Until<F>(F);

impl<F: FnMut() -> bool> Hooks<Echo> for Until<F> {
    fn turn(&mut self, now: Now, machine: &mut Echo) -> ControlFlow<()> {
        machine.next_look = now.instant + Duration::from_millis(1);
        if (self.0)() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

/// A machine that echoes over TCP, with at most a few kilobytes on the way.
struct Echo {
    stack: Stack,
    next_look: Instant,
    pending: BTreeMap<TcpId, VecDeque<u8>>,
    /// Joined packets received.
    joined: u32,
}

impl Echo {
    fn new(now: Instant) -> Self {
        let addresses = [STACK4, STACK6].map(|text| text.parse().unwrap()).to_vec();
        let config = StackConfig {
            addresses,
            mtu: 1500,
            transport_ports: 7600..=7600,
            seed: 1,
        };
        let mut stack = Stack::new(now, config).unwrap();
        stack.listen(7).unwrap();
        Self {
            stack,
            next_look: now,
            pending: BTreeMap::new(),
            joined: 0,
        }
    }

    fn serve(&mut self) {
        while let Some(event) = self.stack.poll_event() {
            match event {
                TcpEvent::Accepted { id, .. } => {
                    self.pending.insert(id, VecDeque::new());
                }
                TcpEvent::Readable(id) | TcpEvent::Writable(id) => self.shuffle(id),
                TcpEvent::Closed(id, _) => {
                    self.pending.remove(&id);
                }
                TcpEvent::Connected(id) => panic!("{id:?} was never begun"),
            }
        }
    }

    fn shuffle(&mut self, id: TcpId) {
        let Some(pending) = self.pending.get_mut(&id) else {
            return;
        };
        let mut buffer = [0; 4096];
        loop {
            let taken = self.stack.send(id, pending.make_contiguous()).unwrap_or(0);
            pending.drain(..taken);
            if !pending.is_empty() {
                return;
            }
            match self.stack.receive(id, &mut buffer) {
                Ok(0) => return,
                Ok(len) => pending.extend(buffer.iter().take(len)),
                Err(error) => {
                    assert_eq!(error, TcpError::Finished);
                    return self.stack.close(id);
                }
            }
        }
    }
}

impl Machine for Echo {
    fn handle_packet(&mut self, now: Now, packet: &[u8], segment: Option<usize>) {
        self.joined += u32::from(segment.is_some());
        let _ = self.stack.handle_packet(now.instant, packet, segment);
        self.serve();
    }

    fn handle_timeout(&mut self, now: Now) {
        self.stack.handle_timeout(now.instant);
        self.serve();
    }

    fn poll_transmit(&mut self, now: Now) -> Option<Transmit> {
        let packet = self.stack.poll_transmit(now.instant);
        self.serve();
        packet.map(Transmit::from)
    }

    fn poll_timeout(&mut self, now: Now) -> Option<(Instant, &'static str)> {
        let look = (self.next_look, "look");
        Some(
            self.stack
                .poll_timeout(now.instant)
                .unwrap_or(look)
                .min(look),
        )
    }
}
