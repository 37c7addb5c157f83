package pricing

// WithDearer is the list with a way to compare prices. Where several lines price
// one request, because their matchers match all, or because one's could, the
// dearer of two prices is taken instead of none: which is dearer the caller
// says, or false where the two cannot be compared.
//
// Readings of a path are not joined so: there an upstream could serve either.
func (l *List) WithDearer(dearer func(a, b int) (price int, ok bool)) *List {
	compared := *l
	compared.dearer = dearer
	return &compared
}

// JoinDearer makes one decision of two for one path, as with two lines that match one
// request: where an upstream may take a request for either, the dearer one is to be paid.
func (l *List) JoinDearer(a, b Decision) Decision { return l.join(a, b) }

// join makes one decision of two lines for one reading of a path.
func (l *List) join(a, b Decision) Decision {
	if a.Kind == Priced && b.Kind == Priced && a.Price != b.Price && l.dearer != nil {
		switch price, ok := l.dearer(a.Price, b.Price); {
		case ok && price == a.Price:
			return a
		case ok && price == b.Price:
			return b
		}
	}
	return Join(a, b)
}
