//! The C library's resolver. Its calls block.

use std::{
    ffi::{CStr, CString},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ptr,
};

/// What it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lookup<T> {
    /// This.
    Found(T),
    /// There is none.
    Nothing,
    /// It does not know: nobody could be asked.
    Failed,
}

/// Longest name, in bytes, with its end.
const LONGEST: usize = 1025;

/// Addresses taken at most.
const MOST: usize = 256;

/// The addresses of a name: of IPv4, of IPv6, or all.
pub(super) fn addresses(name: &str, ipv6: Option<bool>) -> Lookup<Vec<IpAddr>> {
    let Ok(name) = CString::new(name) else {
        return Lookup::Nothing;
    };
    // SAFETY: all zeroes is a valid `addrinfo`.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_socktype = libc::SOCK_STREAM;
    hints.ai_family = match ipv6 {
        Some(false) => libc::AF_INET,
        Some(true) => libc::AF_INET6,
        None => libc::AF_UNSPEC,
    };
    let mut list = ptr::null_mut();
    // SAFETY: the name ends with a zero byte, the hints are whole, and the list is
    // written only when the call succeeds.
    let code =
        unsafe { libc::getaddrinfo(name.as_ptr(), ptr::null(), &raw const hints, &raw mut list) };
    if code != 0 {
        return outcome(code);
    }
    let mut found = Vec::new();
    let mut next = list;
    while !next.is_null() && found.len() < MOST {
        // SAFETY: not null, and an element of the list, which is freed below.
        let element = unsafe { &*next };
        // SAFETY: as the C library fills it: an address of the family that it has.
        found.extend(unsafe { address(element.ai_addr) });
        next = element.ai_next;
    }
    // SAFETY: what the call above made, once.
    unsafe { libc::freeaddrinfo(list) };
    Lookup::Found(found)
}

/// The address in a socket's address.
///
/// # Safety
/// It is null, or an address as long as its family says.
unsafe fn address(socket: *const libc::sockaddr) -> Option<IpAddr> {
    if socket.is_null() {
        return None;
    }
    // SAFETY: not null; every address begins with its family. The C library aligns
    // them for all.
    #[allow(clippy::cast_ptr_alignment)]
    unsafe {
        match i32::from((*socket).sa_family) {
            libc::AF_INET => {
                let address = (*socket.cast::<libc::sockaddr_in>()).sin_addr;
                Some(Ipv4Addr::from(address.s_addr.to_ne_bytes()).into())
            }
            libc::AF_INET6 => {
                let address = (*socket.cast::<libc::sockaddr_in6>()).sin6_addr;
                Some(Ipv6Addr::from(address.s6_addr).into())
            }
            _ => None,
        }
    }
}

/// The name of an address.
pub(super) fn name_of(address: IpAddr) -> Lookup<String> {
    let mut name = [0; LONGEST];
    let mut look_up = |socket: *const libc::sockaddr, length: usize| {
        // SAFETY: the socket's address is as long as is said, and the name's buffer,
        // too; no service is wanted.
        unsafe {
            libc::getnameinfo(
                socket,
                length as libc::socklen_t,
                name.as_mut_ptr(),
                LONGEST as libc::socklen_t,
                ptr::null_mut(),
                0,
                libc::NI_NAMEREQD,
            )
        }
    };
    let code = match address {
        IpAddr::V4(address) => {
            // SAFETY: all zeroes is a valid `sockaddr_in`.
            let mut socket: libc::sockaddr_in = unsafe { std::mem::zeroed() };
            socket.sin_family = libc::AF_INET as libc::sa_family_t;
            socket.sin_addr.s_addr = u32::from_ne_bytes(address.octets());
            look_up((&raw const socket).cast(), size_of_val(&socket))
        }
        IpAddr::V6(address) => {
            // SAFETY: all zeroes is a valid `sockaddr_in6`.
            let mut socket: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
            socket.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            socket.sin6_addr.s6_addr = address.octets();
            look_up((&raw const socket).cast(), size_of_val(&socket))
        }
    };
    if code != 0 {
        return outcome(code);
    }
    // SAFETY: the call has written a text with a zero byte at its end into it.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    match name.to_str() {
        Ok(name) => Lookup::Found(name.to_owned()),
        Err(_) => Lookup::Failed,
    }
}

fn outcome<T>(code: i32) -> Lookup<T> {
    match code {
        libc::EAI_NONAME | libc::EAI_NODATA => Lookup::Nothing,
        _ => Lookup::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_the_hosts_file_are_known() {
        let one = |text: &str| Lookup::Found(vec![text.parse::<IpAddr>().unwrap()]);
        assert_eq!(addresses("192.0.2.7", Some(false)), one("192.0.2.7"));
        assert_eq!(addresses("2001:db8::1", Some(true)), one("2001:db8::1"));
        let localhost = addresses("localhost", Some(false));
        assert_eq!(localhost, one("127.0.0.1"));
        let name = name_of("127.0.0.1".parse().unwrap());
        assert!(matches!(name, Lookup::Found(_)), "{name:?}");
    }
}
