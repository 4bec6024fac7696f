package disklayout

// BootCode is how many bytes of a disk's first sector are the program that a
// BIOS starts; the disk's signature and the old partition table follow.
const BootCode = 440

// NoBoot is a program for a disk's first sector that tells the BIOS to go on
// with its next boot device: INT 18h, and if that ever returns, a loop. A sector
// of zeros would not do: it has the signature that a partition table needs, and
// so it is started.
var NoBoot = [BootCode]byte{0xcd, 0x18, 0xeb, 0xfe}
