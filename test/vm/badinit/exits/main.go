// Exits is an init that ends, for a story of an image that is no good: the
// kernel cannot go on without its PID 1, and panics.
package main

func main() {}
