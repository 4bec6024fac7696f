package disk

import (
	"fmt"
	"strings"
)

// A claim is one sector between the partition table and the first partition. It
// says that its owner has begun to write the disk, with all agreed to, and it is
// there only until the partition table says the same: a power cut while the old
// signatures are wiped would otherwise leave a disk that is not as it was when a
// person agreed, and the machine would ask again for what is lost already.
const claimOffset = 1<<20 - 4096

const claimHead = "slipway begins to install\n"

// readClaim returns the GUID of who claims the disk, empty if nobody does.
func readClaim(s storage, d Disk) (string, error) {
	sector := make([]byte, d.SectorSize)
	if _, err := s.ReadAt(sector, claimOffset); err != nil {
		return "", err
	}
	rest, ok := strings.CutPrefix(string(sector), claimHead)
	if !ok {
		return "", nil
	}
	guid, _, _ := strings.Cut(rest, "\n")
	return guid, nil
}

// writeClaim claims the disk, or with an empty GUID drops the claim.
func writeClaim(s storage, d Disk, guid string) error {
	sector := make([]byte, d.SectorSize)
	if guid != "" {
		copy(sector, claimHead+guid+"\n")
	}
	if _, err := s.WriteAt(sector, claimOffset); err != nil {
		return fmt.Errorf("write the claim: %w", err)
	}
	if err := s.Sync(); err != nil {
		return fmt.Errorf("write the claim: %w", err)
	}
	return nil
}
