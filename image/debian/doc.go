// Package debian fetches packages of a Debian archive and reads files out of
// them, without apt, dpkg or root.
//
// What may be used is pinned: a [Lock] names each package's version, pool path
// and SHA-256. [Update] writes a new lock from the archive's signed indexes;
// [Store] downloads what a lock names and refuses any other bytes. A build with
// a lock and a warm cache needs no network and no signature: the hashes in the
// lock carry the trust of the moment when the signatures were checked.
//
// It is not a resolver: dependencies are named by the recipe, and the root
// image's library check says when one is missing.
package debian
