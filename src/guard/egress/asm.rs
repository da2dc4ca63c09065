//! The gate's BPF program, written instruction by instruction: small enough to be read whole, and the guard needs no
//! compiler, no BTF and no loader. Encoding: `struct bpf_insn` in `linux/bpf.h`.

use super::kernel::Hook;

/// A register of the BPF machine. R10 is the frame; calls keep R6 to R9.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R6 = 6,
    R7,
    R10 = 10,
}

/// Where a jump goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Label {
    Pass,
    Drop,
    Six,
    Flags,
    Look,
}

/// How much is loaded or stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    Byte = 0x10,
    Word = 0x00,
    Double = 0x18,
}

/// A function of the kernel, by its number in `linux/bpf.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Helper {
    MapLookup = 1,
    SkbLoadBytes = 26,
    SkFullsock = 95,
    /// Counts suspends; kernel 5.8.
    KtimeGetBootNs = 125,
}

/// A comparison that jumps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Jump {
    Equal = 0x10,
    NotEqual = 0x50,
    /// Unsigned.
    Less = 0xa0,
    /// Any of the bits.
    Has = 0x40,
}

/// A program under way.
#[derive(Debug, Default)]
pub(super) struct Program {
    code: Vec<u64>,
    labels: Vec<(Label, usize)>,
    jumps: Vec<(Label, usize)>,
}

impl Program {
    fn push(&mut self, code: u8, dst: Reg, src: u8, offset: i16, imm: i32) {
        let registers =
            if cfg!(target_endian = "little") { (dst as u8) | (src << 4) } else { ((dst as u8) << 4) | src };
        let [o0, o1] = offset.to_ne_bytes();
        let [i0, i1, i2, i3] = imm.to_ne_bytes();
        self.code.push(u64::from_ne_bytes([code, registers, o0, o1, i0, i1, i2, i3]));
    }
    pub(super) fn set(&mut self, dst: Reg, value: i32) -> &mut Self {
        self.push(0xb7, dst, 0, 0, value);
        self
    }
    pub(super) fn copy(&mut self, dst: Reg, src: Reg) -> &mut Self {
        self.push(0xbf, dst, src as u8, 0, 0);
        self
    }
    /// `dst = frame + offset`.
    pub(super) fn frame(&mut self, dst: Reg, offset: i32) -> &mut Self {
        self.copy(dst, Reg::R10).add(dst, offset)
    }
    pub(super) fn add(&mut self, dst: Reg, value: i32) -> &mut Self {
        self.push(0x07, dst, 0, 0, value);
        self
    }
    pub(super) fn and(&mut self, dst: Reg, bits: i32) -> &mut Self {
        self.push(0x57, dst, 0, 0, bits);
        self
    }
    pub(super) fn shift_left(&mut self, dst: Reg, bits: i32) -> &mut Self {
        self.push(0x67, dst, 0, 0, bits);
        self
    }
    pub(super) fn shift_right(&mut self, dst: Reg, bits: i32) -> &mut Self {
        self.push(0x77, dst, 0, 0, bits);
        self
    }
    /// `dst = *(size *)(src + offset)`.
    pub(super) fn load(&mut self, size: Size, dst: Reg, src: Reg, offset: i16) -> &mut Self {
        self.push(0x61 | size as u8, dst, src as u8, offset, 0);
        self
    }
    /// `*(size *)(frame + offset) = value`.
    pub(super) fn store(&mut self, size: Size, offset: i16, value: i32) -> &mut Self {
        self.push(0x62 | size as u8, Reg::R10, 0, offset, value);
        self
    }
    /// `dst` = a map, by descriptor: `BPF_LD | BPF_IMM | BPF_DW` with `BPF_PSEUDO_MAP_FD`, two slots.
    pub(super) fn map(&mut self, dst: Reg, fd: i32) -> &mut Self {
        self.push(0x18, dst, 1, 0, fd);
        self.code.push(0);
        self
    }
    pub(super) fn call(&mut self, helper: Helper) -> &mut Self {
        self.push(0x85, Reg::R0, 0, 0, helper as i32);
        self
    }
    pub(super) fn jump_if(&mut self, left: Reg, is: Jump, right: i32, to: Label) -> &mut Self {
        self.jumps.push((to, self.code.len()));
        self.push(0x05 | is as u8, left, 0, 0, right);
        self
    }
    pub(super) fn jump_if_reg(&mut self, left: Reg, is: Jump, right: Reg, to: Label) -> &mut Self {
        self.jumps.push((to, self.code.len()));
        self.push(0x0d | is as u8, left, right as u8, 0, 0);
        self
    }
    pub(super) fn jump(&mut self, to: Label) -> &mut Self {
        self.jumps.push((to, self.code.len()));
        self.push(0x05, Reg::R0, 0, 0, 0);
        self
    }
    pub(super) fn label(&mut self, label: Label) -> &mut Self {
        self.labels.push((label, self.code.len()));
        self
    }
    pub(super) fn exit(&mut self) -> &mut Self {
        self.push(0x95, Reg::R0, 0, 0, 0);
        self
    }

    /// The instructions, jumps resolved; `None` where a label is missing or too far.
    pub(super) fn finish(mut self) -> Option<Vec<u64>> {
        for (label, from) in &self.jumps {
            let to = self.labels.iter().find(|(known, _)| known == label)?.1;
            let offset = i16::try_from(to.checked_sub(from + 1)?).ok()?;
            let mut bytes = self.code[*from].to_ne_bytes();
            bytes[2..4].copy_from_slice(&offset.to_ne_bytes());
            self.code[*from] = u64::from_ne_bytes(bytes);
        }
        Some(self.code)
    }
}

/// Bytes of an exempt network's key: prefix length, family (4 or 6), address.
pub(super) const KEY_BYTES: usize = 24;
/// Bits a lookup compares: family and address.
pub(super) const KEY_BITS: u32 = 160;
/// `sk` in `struct __sk_buff`.
const SKB_SK: i16 = 168;
/// `protocol` and `src_port` (in the machine's order) in `struct bpf_sock`.
const SOCK_PROTOCOL: i16 = 12;
const SOCK_SRC_PORT: i16 = 44;
const IPPROTO_TCP: i32 = 6;
/// Bytes: where an IPv6 header names what follows, and its length; where a TCP header has its flags, and the one that resets.
const NEXT_HEADER_V6: i32 = 6;
const HEADER_V6: i32 = 40;
const TCP_FLAGS: i32 = 13;
const TCP_RST: i32 = 4;
/// Where the key stands in the frame.
const KEY: i16 = -32;

/// The gate. The *socket* says whether the packet is TCP of the database's port: no header has to be believed, and a
/// connection the database opens itself (a standby to its primary's same port) has another local port. Then the deadline;
/// then, only past it, the packet's other end is looked up among the exempt ones. Whatever cannot be told is dropped.
///
/// A reset passes, as it does with nftables: it carries no answer (what data one may bear no TCP delivers), and a client that only
/// waits learns from nothing else that its connection was ended. IPv6's extension headers, which no server here sends, hide it.
pub(super) fn gate(hook: Hook, port: u16, deadline_map: i32, exempt_map: i32) -> Option<Vec<u64>> {
    use Helper::{KtimeGetBootNs, MapLookup, SkFullsock, SkbLoadBytes};
    use Jump::{Equal, Has, Less, NotEqual};
    use Label::{Drop, Flags, Look, Pass, Six};
    use Reg::{R0, R1, R2, R3, R4, R6, R7};
    // The other end's address: destination at egress, source at ingress.
    let (at_v4, at_v6) = match hook {
        Hook::Egress => (16, 24),
        Hook::Ingress => (12, 8),
    };
    let mut p = Program::default();
    p.copy(R6, R1);
    p.load(Size::Double, R1, R6, SKB_SK).jump_if(R1, Equal, 0, Drop);
    p.call(SkFullsock).jump_if(R0, Equal, 0, Drop);
    p.load(Size::Word, R1, R0, SOCK_PROTOCOL).jump_if(R1, NotEqual, IPPROTO_TCP, Pass);
    p.load(Size::Word, R1, R0, SOCK_SRC_PORT).jump_if(R1, NotEqual, i32::from(port), Pass);

    p.store(Size::Word, -4, 0).frame(R2, -4).map(R1, deadline_map).call(MapLookup);
    p.jump_if(R0, Equal, 0, Drop).load(Size::Double, R7, R0, 0);
    p.call(KtimeGetBootNs).jump_if_reg(R0, Less, R7, Pass);

    // 160 fits: see KEY_BITS.
    p.store(Size::Word, KEY, KEY_BITS.cast_signed());
    p.store(Size::Double, KEY + 8, 0).store(Size::Double, KEY + 16, 0).store(Size::Double, -8, 0);
    p.copy(R1, R6).set(R2, 0).frame(R3, -8).set(R4, 1).call(SkbLoadBytes).jump_if(R0, NotEqual, 0, Drop);
    p.load(Size::Byte, R7, Reg::R10, -8).copy(R1, R7).shift_right(R1, 4);
    p.jump_if(R1, Equal, 6, Six).jump_if(R1, NotEqual, 4, Drop);
    p.store(Size::Word, KEY + 4, 4).and(R7, 0x0f).shift_left(R7, 2).add(R7, TCP_FLAGS);
    p.copy(R1, R6).set(R2, at_v4).frame(R3, i32::from(KEY) + 8).set(R4, 4).call(SkbLoadBytes);
    p.jump_if(R0, NotEqual, 0, Drop).jump(Flags);
    p.label(Six).store(Size::Word, KEY + 4, 6);
    p.copy(R1, R6).set(R2, at_v6).frame(R3, i32::from(KEY) + 8).set(R4, 16).call(SkbLoadBytes);
    p.jump_if(R0, NotEqual, 0, Drop);
    p.copy(R1, R6).set(R2, NEXT_HEADER_V6).frame(R3, -8).set(R4, 1).call(SkbLoadBytes).jump_if(R0, NotEqual, 0, Drop);
    p.load(Size::Byte, R1, Reg::R10, -8).jump_if(R1, NotEqual, IPPROTO_TCP, Look).set(R7, HEADER_V6 + TCP_FLAGS);
    p.label(Flags).copy(R1, R6).copy(R2, R7).frame(R3, -8).set(R4, 1).call(SkbLoadBytes);
    p.jump_if(R0, NotEqual, 0, Drop).load(Size::Byte, R1, Reg::R10, -8).jump_if(R1, Has, TCP_RST, Pass);
    p.label(Look).frame(R2, i32::from(KEY)).map(R1, exempt_map).call(MapLookup).jump_if(R0, Equal, 0, Drop);
    p.label(Pass).set(R0, 1).exit();
    p.label(Drop).set(R0, 0).exit();
    p.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(code: &[u64]) -> Vec<[u8; 8]> {
        code.iter().map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn instructions_are_encoded_as_the_kernel_reads_them() {
        let mut p = Program::default();
        p.copy(Reg::R6, Reg::R1).load(Size::Double, Reg::R1, Reg::R6, 168).jump_if(
            Reg::R1,
            Jump::Equal,
            0,
            Label::Drop,
        );
        p.store(Size::Word, -4, 7).map(Reg::R1, 9).call(Helper::KtimeGetBootNs);
        p.jump_if_reg(Reg::R0, Jump::Less, Reg::R7, Label::Drop).shift_right(Reg::R1, 4).load(
            Size::Byte,
            Reg::R1,
            Reg::R10,
            -8,
        );
        p.load(Size::Word, Reg::R1, Reg::R0, 44).frame(Reg::R2, -4).label(Label::Drop).set(Reg::R0, -1).exit();
        p.and(Reg::R7, 15).shift_left(Reg::R7, 2).jump_if(Reg::R1, Jump::Has, 4, Label::Pass).label(Label::Pass);
        assert_eq!(
            bytes(&p.finish().expect("every label is there")),
            [
                [0xbf, 0x16, 0, 0, 0, 0, 0, 0],
                [0x79, 0x61, 168, 0, 0, 0, 0, 0],
                [0x15, 0x01, 10, 0, 0, 0, 0, 0],
                [0x62, 0x0a, 0xfc, 0xff, 7, 0, 0, 0],
                [0x18, 0x11, 0, 0, 9, 0, 0, 0],
                [0; 8],
                [0x85, 0, 0, 0, 125, 0, 0, 0],
                [0xad, 0x70, 5, 0, 0, 0, 0, 0],
                [0x77, 0x01, 0, 0, 4, 0, 0, 0],
                [0x71, 0xa1, 0xf8, 0xff, 0, 0, 0, 0],
                [0x61, 0x01, 44, 0, 0, 0, 0, 0],
                [0xbf, 0xa2, 0, 0, 0, 0, 0, 0],
                [0x07, 0x02, 0, 0, 0xfc, 0xff, 0xff, 0xff],
                [0xb7, 0x00, 0, 0, 0xff, 0xff, 0xff, 0xff],
                [0x95, 0, 0, 0, 0, 0, 0, 0],
                [0x57, 0x07, 0, 0, 15, 0, 0, 0],
                [0x67, 0x07, 0, 0, 2, 0, 0, 0],
                [0x45, 0x01, 0, 0, 4, 0, 0, 0],
            ]
        );
    }

    #[test]
    fn a_label_that_is_not_there_is_no_program() {
        let mut p = Program::default();
        p.jump(Label::Pass).exit();
        assert_eq!(p.finish(), None);
    }

    #[test]
    fn the_gate_differs_by_hook_and_port() {
        let code = |hook, port| gate(hook, port, 3, 4).expect("assembled");
        assert_eq!(code(Hook::Egress, 5432), code(Hook::Egress, 5432));
        assert_ne!(code(Hook::Egress, 5432), code(Hook::Ingress, 5432));
        assert_ne!(code(Hook::Egress, 5432), code(Hook::Egress, 5433));
        assert!(gate(Hook::Ingress, u16::MAX, 3, 4).is_some());
    }
}
