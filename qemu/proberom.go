package qemu

// probePort is the port of QEMU's isa-debug-exit device.
const probePort = 0xf4

// probePassed is QEMU's exit code after probeROM ran to its end: the device
// exits with 2n+1 when n is written to it.
const probePassed = 2*0x10 + 1

// probeROM returns a firmware image that goes from real mode to long mode,
// executes LOCK CMPXCHG16B, and ends QEMU with exit code probePassed. Each of
// those steps needs more of the processor than the one before.
func probeROM() []byte {
	// 64 KiB, the smallest that QEMU takes. It ends at 4 GiB, where the
	// processor starts, and appears at 0xf0000 too, where the code runs.
	rom := make([]byte, 64<<10)
	copy(rom, probeCode)
	copy(rom[len(rom)-16:], "\xea\x00\x00\x00\xf0") // ljmp $0xf000,$0
	return rom
}

// probeCode is what stands at 0xf0000, as objdump shows it.
const probeCode = "" +
	// .code16
	"\xfa" + // 00: cli
	"\x2e\x66\x0f\x01\x16\xb8\x00" + // 01: lgdtl  %cs:0xb8
	"\x0f\x20\xc0" + // 08: mov    %cr0,%eax
	"\x0c\x01" + // 0b: or     $0x1,%al            # PE: protected mode
	"\x0f\x22\xc0" + // 0d: mov    %eax,%cr0
	"\x66\xea\x18\x00\x0f\x00\x08\x00" + // 10: ljmpl  $0x8,$0xf0018
	// .code32
	"\x66\xb8\x10\x00" + // 18: mov    $0x10,%ax
	"\x8e\xd8" + // 1c: mov    %eax,%ds
	"\x8e\xc0" + // 1e: mov    %eax,%es
	"\x8e\xd0" + // 20: mov    %eax,%ss
	"\x31\xc0" + // 22: xor    %eax,%eax
	"\xbf\x00\x10\x00\x00" + // 24: mov    $0x1000,%edi
	"\x0f\x22\xdf" + // 29: mov    %edi,%cr3
	"\xb9\x00\x0c\x00\x00" + // 2c: mov    $0xc00,%ecx
	"\xf3\xab" + // 31: rep stos %eax,%es:(%edi)   # clear three page tables
	"\xc7\x05\x00\x10\x00\x00\x03\x20\x00\x00" + // 33: movl   $0x2003,0x1000
	"\xc7\x05\x00\x20\x00\x00\x03\x30\x00\x00" + // 3d: movl   $0x3003,0x2000
	"\xc7\x05\x00\x30\x00\x00\x83\x00\x00\x00" + // 47: movl   $0x83,0x3000        # 2 MiB at 0
	"\x0f\x20\xe0" + // 51: mov    %cr4,%eax
	"\x0c\x20" + // 54: or     $0x20,%al           # PAE
	"\x0f\x22\xe0" + // 56: mov    %eax,%cr4
	"\xb9\x80\x00\x00\xc0" + // 59: mov    $0xc0000080,%ecx    # EFER
	"\x0f\x32" + // 5e: rdmsr
	"\x80\xcc\x01" + // 60: or     $0x1,%ah            # LME: long mode
	"\x0f\x30" + // 63: wrmsr
	"\x0f\x20\xc0" + // 65: mov    %cr0,%eax
	"\x0d\x00\x00\x00\x80" + // 68: or     $0x80000000,%eax    # PG: paging
	"\x0f\x22\xc0" + // 6d: mov    %eax,%cr0
	"\xea\x77\x00\x0f\x00\x18\x00" + // 70: ljmp   $0x18,$0xf0077
	// .code64
	"\x31\xc0" + // 77: xor    %eax,%eax
	"\x99" + // 79: cltd
	"\x31\xc9" + // 7a: xor    %ecx,%ecx
	"\x8d\x58\x10" + // 7c: lea    0x10(%rax),%ebx
	"\xf0\x48\x0f\xc7\x88\x00\x40\x00\x00" + // 7f: lock cmpxchg16b 0x4000(%rax) # 0 becomes 0x10
	"\x8a\x04\x25\x00\x40\x00\x00" + // 88: mov    0x4000,%al
	"\xba\xf4\x00\x00\x00" + // 8f: mov    $0xf4,%edx          # probePort
	"\xee" + // 94: out    %al,(%dx)
	"\xf4" + // 95: hlt
	"\x66\x90" + // 96: xchg   %ax,%ax
	// segment descriptors: null, 32-bit code, data, 64-bit code
	"\x00\x00\x00\x00\x00\x00\x00\x00" + // 98: .quad  0
	"\xff\xff\x00\x00\x00\x9b\xcf\x00" + // a0: .quad  0x00cf9b000000ffff
	"\xff\xff\x00\x00\x00\x93\xcf\x00" + // a8: .quad  0x00cf93000000ffff
	"\xff\xff\x00\x00\x00\x9b\xaf\x00" + // b0: .quad  0x00af9b000000ffff
	// operand of lgdt: limit and address of the descriptors
	"\x1f\x00" + // b8: .word  0x1f
	"\x98\x00\x0f\x00" // ba: .long  0xf0098
