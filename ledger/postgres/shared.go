package postgres

// Shared says that several gateways may use the ledger: a held row may be held
// by one that is dead, until its lease ends.
func (l *Ledger) Shared() bool { return true }
