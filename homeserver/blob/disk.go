package blob

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// abandoned is after how long without a write an upload counts as crashed.
const abandoned = time.Hour

// Disk keeps blobs in a folder: a blob is the file ab/cdef… named by its
// digest, readable by its owner alone. Its methods may be called from several
// goroutines, and several processes may share the folder.
type Disk struct {
	dir string
}

// OpenDisk returns the blobs in the folder dir, which is created with mode
// 0700 if needed.
func OpenDisk(dir string) (*Disk, error) {
	d := &Disk{dir: dir}
	if err := d.makeFolders(); err != nil {
		return nil, fmt.Errorf("open media folder: %w", err)
	}
	return d, nil
}

// uploads is the folder of files that are still written.
func (d *Disk) uploads() string { return filepath.Join(d.dir, "uploads") }

// path returns the file of a blob, and its folder.
func (d *Disk) path(name Digest) (file, folder string) {
	s := name.String()
	folder = filepath.Join(d.dir, s[:2])
	return filepath.Join(folder, s[2:]), folder
}

// makeFolders makes all folders that blobs can be in, so that Put needs to
// bring only one of them to the disk.
func (d *Disk) makeFolders() error {
	if err := os.MkdirAll(d.uploads(), 0o700); err != nil {
		return err
	}
	for b := range 256 {
		_, folder := d.path(Digest{byte(b)})
		if err := os.Mkdir(folder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return syncFolder(d.dir)
}

// Clean implements Store. Uploads that were written to lately may belong to
// another process.
func (d *Disk) Clean(ctx context.Context, now time.Time) error {
	entries, err := os.ReadDir(d.uploads())
	if err != nil {
		return fmt.Errorf("clean media folder: %w", err)
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && now.Sub(info.ModTime()) > abandoned {
			err = os.Remove(filepath.Join(d.uploads(), e.Name()))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("clean media folder: %w", err)
		}
	}
	return nil
}

// Put implements Store. When it returns, the blob survives a power cut.
func (d *Disk) Put(ctx context.Context, r io.Reader, limit int64, known func(Digest)) (Digest, int64, error) {
	f, err := os.CreateTemp(d.uploads(), "*") // mode 0600
	if err != nil {
		return Digest{}, 0, fmt.Errorf("put blob: %w", err)
	}
	name, size, err := fill(ctx, f, r, limit)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		if known != nil {
			known(name)
		}
		err = d.keep(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // or Clean does it
		return Digest{}, 0, fmt.Errorf("put blob: %w", err)
	}
	return name, size, nil
}

// fill copies r to f.
func fill(ctx context.Context, f *os.File, r io.Reader, limit int64) (Digest, int64, error) {
	r = &interruptible{ctx, r}
	if limit >= 0 && limit+1 > 0 {
		r = io.LimitReader(r, limit+1)
	}
	hash := sha256.New()
	size, err := io.Copy(io.MultiWriter(f, hash), r)
	if err != nil {
		return Digest{}, 0, err
	}
	if limit >= 0 && size > limit {
		return Digest{}, 0, ErrTooLarge
	}
	return Digest(hash.Sum(nil)), size, nil
}

// keep gives an upload its final name, on the disk too.
func (d *Disk) keep(upload string, name Digest) error {
	file, folder := d.path(name)
	if err := os.Rename(upload, file); err != nil {
		return err
	}
	return syncFolder(folder)
}

// syncFolder brings a folder's list of names to the disk.
func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Open implements Store.
func (d *Disk) Open(ctx context.Context, name Digest) (io.ReadSeekCloser, int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	file, _ := d.path(name)
	f, err := os.Open(file)
	if err != nil {
		return nil, 0, fmt.Errorf("open blob: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("open blob: %w", err), f.Close())
	}
	return f, info.Size(), nil
}

// Delete implements Store. Those who read the blob at the moment can finish.
func (d *Disk) Delete(ctx context.Context, name Digest) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	file, _ := d.path(name)
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete blob: %w", err)
	}
	return nil
}

// Walk implements Store, in the order of the digests.
func (d *Disk) Walk(ctx context.Context, f func(Info) error) error {
	folders, err := os.ReadDir(d.dir) // sorted
	if err != nil {
		return fmt.Errorf("walk blobs: %w", err)
	}
	for _, folder := range folders {
		if !folder.IsDir() || len(folder.Name()) != 2 {
			continue
		}
		if err := d.walkFolder(ctx, folder.Name(), f); err != nil {
			return err
		}
	}
	return nil
}

func (d *Disk) walkFolder(ctx context.Context, folder string, f func(Info) error) error {
	files, err := os.ReadDir(filepath.Join(d.dir, folder))
	if err != nil {
		return fmt.Errorf("walk blobs: %w", err)
	}
	for _, file := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		name, err := ParseDigest(folder + file.Name())
		if err != nil {
			continue
		}
		info, err := file.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("walk blobs: %w", err)
		}
		if err := f(Info{Digest: name, Size: info.Size(), Put: info.ModTime().UnixMilli()}); err != nil {
			return err
		}
	}
	return nil
}

// interruptible is a reader that ends with its context.
type interruptible struct {
	ctx context.Context //nolint:containedctx // of the one copy that it is made for
	r   io.Reader
}

func (r *interruptible) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
