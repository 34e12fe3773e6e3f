//! The loopback interface of a new network namespace, which starts out down.

use std::io;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

/// Brings it up, with one request and its acknowledgement (`rtnetlink(7)`).
pub fn up() -> io::Result<()> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    send(&socket, &set_up(), SendFlags::empty())?;
    let mut answer = [0; 1024];
    let (received, _) = recv(&socket, answer.as_mut_slice(), RecvFlags::empty())?;
    // A header, and the error of the request as a negative number, or 0.
    match answer.get(..received).and_then(|a| a.get(HEADER..HEADER + 4)) {
        Some(&[a, b, c, d]) => match i32::from_ne_bytes([a, b, c, d]) {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(-error)),
        },
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// `RTM_NEWLINK` of interface 1, which loopback is in every namespace, with `IFF_UP` set and nothing else changed.
fn set_up() -> [u8; 32] {
    let mut out = [0; 32];
    let words: [&[u8]; 9] = [
        &32_u32.to_ne_bytes(),
        &RTM_NEWLINK.to_ne_bytes(),
        &(NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes(),
        &1_u32.to_ne_bytes(), // sequence number
        &0_u32.to_ne_bytes(), // sender; the kernel fills it in
        &0_u32.to_ne_bytes(), // address family, padding, device type
        &1_i32.to_ne_bytes(),
        &IFF_UP.to_ne_bytes(),
        &IFF_UP.to_ne_bytes(), // which flags change
    ];
    out.iter_mut().zip(words.concat()).for_each(|(to, from)| *to = from);
    out
}

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
const RTM_NEWLINK: u16 = 16;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const IFF_UP: u32 = 1;
