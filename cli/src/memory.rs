//! Copying, filling and comparing memory, for the binary of the image.
//!
//! musl's functions begin a string instruction for nearly every length, which costs about as much as copying a whole
//! HTTP head. These move up to 128 bytes with a few overlapping 16-byte loads and stores, up to [`REP`] bytes in a loop
//! of 64, and leave only more than that to the string instructions. They take the place of musl's when the program is
//! linked; a program linked with glibc keeps glibc's. Only instructions that every x86-64 processor has are used.
//!
//! Assembly, because a compiler turns a loop that copies memory into a call of the function it is in. It follows the
//! System V calling convention: arguments in `rdi`, `rsi` and `rdx`, the result in `rax`, nothing else kept.
#![allow(unsafe_code, reason = "measured: comparing 100 bytes takes a tenth of what it takes with musl")]

/// From this many bytes on, `rep movsb` and `rep stosb` are faster than a loop.
const REP: usize = 2048;

#[cfg(target_env = "musl")]
macro_rules! names {
    () => {
        ".globl memcpy, memmove, memset, memcmp, bcmp
         .set memcpy, maesh_memmove
         .set memmove, maesh_memmove
         .set memset, maesh_memset
         .set memcmp, maesh_memcmp
         .set bcmp, maesh_memcmp"
    };
}
#[cfg(not(target_env = "musl"))]
macro_rules! names {
    () => {
        ""
    };
}

std::arch::global_asm!(
    ".pushsection .text.maesh_memory,\"ax\",@progbits",
    // void *memmove(rdi: void *to, rsi: const void *from, rdx: size_t n)
    ".globl maesh_memmove
     .type maesh_memmove, @function
     .p2align 6
     maesh_memmove:
        mov rax, rdi
        cmp rdx, 16
        jb 20f
        cmp rdx, 32
        ja 10f
        movups xmm0, [rsi]
        movups xmm1, [rsi + rdx - 16]
        movups [rdi], xmm0
        movups [rdi + rdx - 16], xmm1
        ret
     10:
        cmp rdx, 64
        ja 11f
        movups xmm0, [rsi]
        movups xmm1, [rsi + 16]
        movups xmm2, [rsi + rdx - 32]
        movups xmm3, [rsi + rdx - 16]
        movups [rdi], xmm0
        movups [rdi + 16], xmm1
        movups [rdi + rdx - 32], xmm2
        movups [rdi + rdx - 16], xmm3
        ret
     11:
        cmp rdx, 128
        ja 12f
        movups xmm0, [rsi]
        movups xmm1, [rsi + 16]
        movups xmm2, [rsi + 32]
        movups xmm3, [rsi + 48]
        movups xmm4, [rsi + rdx - 64]
        movups xmm5, [rsi + rdx - 48]
        movups xmm6, [rsi + rdx - 32]
        movups xmm7, [rsi + rdx - 16]
        movups [rdi], xmm0
        movups [rdi + 16], xmm1
        movups [rdi + 32], xmm2
        movups [rdi + 48], xmm3
        movups [rdi + rdx - 64], xmm4
        movups [rdi + rdx - 48], xmm5
        movups [rdi + rdx - 32], xmm6
        movups [rdi + rdx - 16], xmm7
        ret
     12:
        mov rcx, rdi
        sub rcx, rsi
        cmp rcx, rdx
        jb 15f
        cmp rdx, {rep}
        jae 14f
     13:
        movups xmm4, [rsi + rdx - 64]
        movups xmm5, [rsi + rdx - 48]
        movups xmm6, [rsi + rdx - 32]
        movups xmm7, [rsi + rdx - 16]
        lea r8, [rdi + rdx - 64]
     30:
        movups xmm0, [rsi]
        movups xmm1, [rsi + 16]
        movups xmm2, [rsi + 32]
        movups xmm3, [rsi + 48]
        add rsi, 64
        movups [rdi], xmm0
        movups [rdi + 16], xmm1
        movups [rdi + 32], xmm2
        movups [rdi + 48], xmm3
        add rdi, 64
        cmp rdi, r8
        jb 30b
        movups [r8], xmm4
        movups [r8 + 16], xmm5
        movups [r8 + 32], xmm6
        movups [r8 + 48], xmm7
        ret
     14:
        neg rcx
        cmp rcx, rdx
        jb 13b
        mov rcx, rdx
        rep movsb
        ret",
    // The target begins within the source: from the end to the beginning. The same address needs nothing.
    "15:
        test rcx, rcx
        jz 17f
        movups xmm4, [rsi]
        movups xmm5, [rsi + 16]
        movups xmm6, [rsi + 32]
        movups xmm7, [rsi + 48]
        lea r8, [rdi + 64]
        lea r9, [rsi + rdx]
        lea r10, [rdi + rdx]
     16:
        movups xmm0, [r9 - 16]
        movups xmm1, [r9 - 32]
        movups xmm2, [r9 - 48]
        movups xmm3, [r9 - 64]
        sub r9, 64
        movups [r10 - 16], xmm0
        movups [r10 - 32], xmm1
        movups [r10 - 48], xmm2
        movups [r10 - 64], xmm3
        sub r10, 64
        cmp r10, r8
        ja 16b
        movups [rdi], xmm4
        movups [rdi + 16], xmm5
        movups [rdi + 32], xmm6
        movups [rdi + 48], xmm7
     17:
        ret
     20:
        cmp edx, 8
        jb 21f
        mov rcx, [rsi]
        mov r8, [rsi + rdx - 8]
        mov [rdi], rcx
        mov [rdi + rdx - 8], r8
        ret
     21:
        cmp edx, 4
        jb 22f
        mov ecx, [rsi]
        mov r8d, [rsi + rdx - 4]
        mov [rdi], ecx
        mov [rdi + rdx - 4], r8d
        ret
     22:
        cmp edx, 1
        jb 24f
        je 23f
        movzx ecx, word ptr [rsi]
        movzx r8d, word ptr [rsi + rdx - 2]
        mov [rdi], cx
        mov [rdi + rdx - 2], r8w
        ret
     23:
        movzx ecx, byte ptr [rsi]
        mov [rdi], cl
     24:
        ret
     .size maesh_memmove, . - maesh_memmove",
    // void *memset(rdi: void *to, esi: int byte, rdx: size_t n)
    ".globl maesh_memset
     .type maesh_memset, @function
     .p2align 6
     maesh_memset:
        mov rax, rdi
        movzx esi, sil
        mov rcx, 0x0101010101010101
        imul rsi, rcx
        cmp rdx, 16
        jb 50f
        movq xmm0, rsi
        punpcklqdq xmm0, xmm0
        movups [rdi], xmm0
        movups [rdi + rdx - 16], xmm0
        cmp rdx, 32
        ja 40f
        ret
     40:
        movups [rdi + 16], xmm0
        movups [rdi + rdx - 32], xmm0
        cmp rdx, 64
        ja 41f
        ret
     41:
        cmp rdx, {rep}
        jae 43f
        lea r8, [rdi + rdx - 64]
     42:
        movups [rdi], xmm0
        movups [rdi + 16], xmm0
        movups [rdi + 32], xmm0
        movups [rdi + 48], xmm0
        add rdi, 64
        cmp rdi, r8
        jb 42b
        movups [r8], xmm0
        movups [r8 + 16], xmm0
        movups [r8 + 32], xmm0
        movups [r8 + 48], xmm0
        ret
     43:
        mov r8, rax
        mov eax, esi
        mov rcx, rdx
        rep stosb
        mov rax, r8
        ret
     50:
        cmp edx, 8
        jb 51f
        mov [rdi], rsi
        mov [rdi + rdx - 8], rsi
        ret
     51:
        cmp edx, 4
        jb 52f
        mov [rdi], esi
        mov [rdi + rdx - 4], esi
        ret
     52:
        cmp edx, 1
        jb 54f
        mov [rdi], sil
        je 54f
        mov [rdi + rdx - 2], si
     54:
        ret
     .size maesh_memset, . - maesh_memset",
    // int memcmp(rdi: const void *a, rsi: const void *b, rdx: size_t n)
    ".globl maesh_memcmp
     .type maesh_memcmp, @function
     .p2align 6
     maesh_memcmp:
        xor ecx, ecx
        cmp rdx, 16
        jb 70f
        lea r8, [rdx - 16]
     60:
        movups xmm0, [rdi + rcx]
        movups xmm1, [rsi + rcx]
        pcmpeqb xmm0, xmm1
        pmovmskb eax, xmm0
        xor eax, 0xffff
        jnz 62f
        cmp rcx, r8
        jae 61f
        add rcx, 16
        cmp rcx, r8
        cmova rcx, r8
        jmp 60b
     61:
        xor eax, eax
        ret
     62:
        bsf eax, eax
        add rcx, rax
     63:
        movzx eax, byte ptr [rdi + rcx]
        movzx edx, byte ptr [rsi + rcx]
        sub eax, edx
        ret
     70:
        cmp edx, 8
        jb 71f
        mov r8, [rdi]
        mov r9, [rsi]
        cmp r8, r9
        jne 73f
        mov r8, [rdi + rdx - 8]
        mov r9, [rsi + rdx - 8]
        cmp r8, r9
        jne 73f
        xor eax, eax
        ret
     71:
        cmp edx, 4
        jb 74f
        mov r8d, [rdi]
        mov r9d, [rsi]
        cmp r8, r9
        jne 73f
        mov r8d, [rdi + rdx - 4]
        mov r9d, [rsi + rdx - 4]
        cmp r8, r9
        jne 73f
        xor eax, eax
        ret",
    // Both hold the bytes in the order of memory from the lowest on: turned round, the greater number has the greater
    // first byte that differs. Two of four bytes stand in the lower half, with zeros above.
    "73:
        bswap r8
        bswap r9
        xor eax, eax
        cmp r8, r9
        seta al
        sbb eax, 0
        ret
     74:
        cmp rcx, rdx
        jae 61b
        movzx eax, byte ptr [rdi + rcx]
        movzx r8d, byte ptr [rsi + rcx]
        inc rcx
        sub eax, r8d
        jz 74b
        ret
     .size maesh_memcmp, . - maesh_memcmp",
    names!(),
    ".popsection",
    rep = const REP,
);

#[cfg(test)]
mod tests;
