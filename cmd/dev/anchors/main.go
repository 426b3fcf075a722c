// Command anchors lists the anchors of the Matrix specification's pages, from
// its source. The law that checks the specification's URLs in our comments
// reads the list.
//
//	go run ./cmd/dev/anchors -spec directory [-o file] [-links]
//
// The directory is that of the release which our URLs name, with content and
// data/api in it.
package main

import (
	"bufio"
	"cmp"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
)

func main() {
	spec := flag.String("spec", "", "`directory` of the specification's source")
	out := flag.String("o", "cmd/switchboard/testdata/anchors.txt", "`file` to write")
	links := flag.Bool("links", false, "write nothing; name links inside the specification that have no anchor in the list, which tells how good the list is")
	flag.Parse()
	if err := run(*spec, *out, *links); err != nil {
		fmt.Fprintln(os.Stderr, "anchors:", err)
		os.Exit(1)
	}
}

func run(spec, out string, links bool) error {
	book, err := readBook(os.DirFS(spec))
	if err != nil {
		return err
	}
	if links {
		return book.checkLinks(os.Stdout)
	}
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	if err := cmp.Or(book.write(f), f.Close()); err != nil {
		return err
	}
	n := 0
	for _, p := range book {
		n += len(p.anchors)
	}
	fmt.Printf("%d anchors of %d pages\n", n, len(book))
	return nil
}

// write prints the list: a line for each page, indented lines for its anchors.
func (b book) write(w io.Writer) error {
	text := bufio.NewWriter(w)
	for _, p := range b {
		fmt.Fprintln(text, p.name)
		anchors := slices.Clone(p.anchors)
		slices.Sort(anchors)
		for _, a := range slices.Compact(anchors) {
			fmt.Fprintln(text, " "+a)
		}
	}
	return text.Flush()
}
