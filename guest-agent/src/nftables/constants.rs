//! Numbers of the kernel's interface: `linux/netfilter/nf_tables.h`,
//! `nfnetlink.h`, `nf_tables_compat.h` and `netfilter.h`.

/// The subsystem, as the upper byte of a message's type.
pub(super) const SUBSYSTEM: u16 = 10;

/// Brackets of a transaction.
pub(super) mod batch {
    pub(in super::super) const BEGIN: u16 = 16;
    pub(in super::super) const END: u16 = 17;
}

/// Types of messages.
pub(super) mod message {
    pub(in super::super) const NEW_TABLE: u16 = 0;
    pub(in super::super) const DELETE_TABLE: u16 = 2;
    pub(in super::super) const NEW_CHAIN: u16 = 3;
    pub(in super::super) const NEW_RULE: u16 = 6;
    pub(in super::super) const NEW_SET: u16 = 9;
    pub(in super::super) const NEW_SET_ELEMENT: u16 = 12;
}

/// Families of tables and packets.
pub(super) mod family {
    pub(in super::super) const INET: u8 = 1;
    pub(in super::super) const IPV4: u8 = 2;
    pub(in super::super) const IPV6: u8 = 10;
}

pub(super) mod table {
    pub(in super::super) const NAME: u16 = 1;
}

pub(super) mod chain {
    pub(in super::super) const TABLE: u16 = 1;
    pub(in super::super) const NAME: u16 = 3;
    pub(in super::super) const HOOK: u16 = 4;
    pub(in super::super) const TYPE: u16 = 7;
    pub(in super::super) const HOOK_NUMBER: u16 = 1;
    pub(in super::super) const HOOK_PRIORITY: u16 = 2;
}

pub(super) mod rule {
    pub(in super::super) const TABLE: u16 = 1;
    pub(in super::super) const CHAIN: u16 = 2;
    pub(in super::super) const EXPRESSIONS: u16 = 4;
    pub(in super::super) const LIST_ELEMENT: u16 = 1;
    pub(in super::super) const EXPRESSION_NAME: u16 = 1;
    pub(in super::super) const EXPRESSION_DATA: u16 = 2;
}

pub(super) mod set {
    pub(in super::super) const TABLE: u16 = 1;
    pub(in super::super) const NAME: u16 = 2;
    pub(in super::super) const FLAGS: u16 = 3;
    pub(in super::super) const KEY_TYPE: u16 = 4;
    pub(in super::super) const KEY_LENGTH: u16 = 5;
    pub(in super::super) const DATA_TYPE: u16 = 6;
    pub(in super::super) const DATA_LENGTH: u16 = 7;
    pub(in super::super) const ID: u16 = 10;
    pub(in super::super) const USER_DATA: u16 = 13;
    pub(in super::super) const FLAG_INTERVAL: u32 = 4;
    pub(in super::super) const FLAG_MAP: u32 = 8;
    pub(in super::super) const DATA_IS_VERDICT: u32 = 0xffff_ff00;
    pub(in super::super) const ELEMENTS_TABLE: u16 = 1;
    pub(in super::super) const ELEMENTS_SET: u16 = 2;
    pub(in super::super) const ELEMENTS: u16 = 3;
    pub(in super::super) const ELEMENT_KEY: u16 = 1;
    pub(in super::super) const ELEMENT_DATA: u16 = 2;
    pub(in super::super) const ELEMENT_FLAGS: u16 = 3;
    pub(in super::super) const ELEMENT_INTERVAL_END: u32 = 1;
}

pub(super) mod data {
    pub(in super::super) const VALUE: u16 = 1;
    pub(in super::super) const VERDICT: u16 = 2;
    pub(in super::super) const VERDICT_CODE: u16 = 1;
    pub(in super::super) const VERDICT_CHAIN: u16 = 2;
}

/// Keys of the expression `meta`.
pub(super) mod meta {
    pub(in super::super) const MARK: u32 = 3;
    pub(in super::super) const INPUT_NAME: u32 = 6;
    pub(in super::super) const OUTPUT_NAME: u32 = 7;
    pub(in super::super) const FAMILY: u32 = 15;
    pub(in super::super) const PROTOCOL: u32 = 16;
}

/// Registers. The first takes the verdict, the others 16 bytes each.
pub(super) mod register {
    pub(in super::super) const VERDICT: u32 = 0;
    pub(in super::super) const FIRST: u32 = 1;
    pub(in super::super) const SECOND: u32 = 2;
}

/// Where a payload is counted from.
pub(super) mod header {
    pub(in super::super) const NETWORK: u32 = 1;
    pub(in super::super) const TRANSPORT: u32 = 2;
}
