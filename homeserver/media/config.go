package media

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"switchboard/homeserver/blob"
)

// Config is the section "media" of the configuration file.
type Config struct {
	// MaxUpload is the largest file that may be uploaded.
	MaxUpload int64 `yaml:"max_upload" unit:"bytes"`

	// Quota is how much one user may have uploaded altogether. 0 sets no limit.
	Quota int64 `yaml:"quota" unit:"bytes"`

	// MaxPixels is the largest image, width times height, of which thumbnails
	// are made. Larger ones can only be downloaded as they are.
	MaxPixels int64 `yaml:"max_pixels"`

	// ThumbnailMemory is how much memory the images may take that are being
	// made into thumbnails. One that alone takes more gets none.
	ThumbnailMemory int64 `yaml:"thumbnail_memory" unit:"bytes"`

	// Unauthenticated serves media without an access token, too, at the paths
	// that old clients and servers use. Whoever knows a media ID can then
	// fetch the file.
	Unauthenticated bool `yaml:"unauthenticated"`

	// UploadExpiry is how long a media ID made by /create waits for its file.
	UploadExpiry time.Duration `yaml:"upload_expiry"`

	// MaxRemote is the largest file that is fetched from another server.
	MaxRemote int64 `yaml:"max_remote" unit:"bytes"`

	// RemoteQuota is how much the files of other servers that are kept may have
	// altogether. Those go first for which nobody has asked for longest. 0 sets
	// no limit.
	RemoteQuota int64 `yaml:"remote_quota" unit:"bytes"`

	// RemoteKeep is how long a file of another server is kept after somebody
	// asked for it. It is fetched again when somebody asks again. 0 keeps it
	// for as long as the quota allows.
	RemoteKeep time.Duration `yaml:"remote_keep"`

	// LocalKeep is how long a file that a user of this server uploaded is kept
	// after somebody last asked for it. Then it is deleted for good. Clients keep
	// what they once fetched, so people may still look at a file for which nobody
	// asks any more. Avatars of users stay. 0 keeps all files for ever.
	LocalKeep time.Duration `yaml:"local_keep"`

	// PendingUploads is how many media IDs without a file one user may have.
	PendingUploads int `yaml:"pending_uploads"`

	// Previews of pages on the web.
	Previews PreviewConfig `yaml:"previews"`

	// Storage is where files are kept: "disk", in the data directory, or "s3".
	// Where both are in use, files that lie in the other place are still found,
	// and "switchboard media move" brings them here.
	Storage string `yaml:"storage" oneof:"disk s3"`

	// S3 is a bucket for files on a server that speaks Amazon's S3.
	S3 blob.S3Config `yaml:"s3"`
}

// DefaultConfig is right for a small server.
func DefaultConfig() Config {
	return Config{
		MaxUpload:       100 << 20,
		MaxPixels:       50_000_000,
		ThumbnailMemory: 256 << 20,
		UploadExpiry:    24 * time.Hour,
		MaxRemote:       100 << 20,
		RemoteQuota:     20 << 30,
		RemoteKeep:      90 * 24 * time.Hour,
		PendingUploads:  10,
		Previews:        PreviewConfig{Timeout: 20 * time.Second, MaxPage: 1 << 20, MaxImage: 10 << 20, Keep: time.Hour},
		Storage:         "disk",
		S3:              blob.S3Config{Region: "us-east-1"},
	}
}

// Check returns everything that is wrong, not only the first thing.
func (c Config) Check() error {
	var errs []error
	bad := func(key, text string) { errs = append(errs, fmt.Errorf("media.%s: %s", key, text)) }
	if c.MaxUpload < 1<<10 {
		bad("max_upload", "must be at least 1K")
	}
	if c.Quota != 0 && c.Quota < c.MaxUpload {
		bad("quota", "must be 0 for no limit, or at least max_upload")
	}
	if c.MaxPixels < 1 {
		bad("max_pixels", "must be at least 1")
	}
	if c.ThumbnailMemory < 1<<20 {
		bad("thumbnail_memory", "must be at least 1M")
	}
	if c.UploadExpiry < time.Minute {
		bad("upload_expiry", "must be at least 1m")
	}
	if c.MaxRemote < 1<<10 {
		bad("max_remote", "must be at least 1K")
	}
	if c.RemoteQuota != 0 && c.RemoteQuota < c.MaxRemote {
		bad("remote_quota", "must be 0 for no limit, or at least max_remote")
	}
	if c.RemoteKeep != 0 && c.RemoteKeep < time.Hour {
		bad("remote_keep", "must be 0 for no limit, or at least 1h")
	}
	if c.LocalKeep != 0 && c.LocalKeep < 24*time.Hour {
		bad("local_keep", "must be 0 for no limit, or at least 24h")
	}
	if c.PendingUploads < 1 {
		bad("pending_uploads", "must be at least 1")
	}
	c.Previews.check(bad)
	if c.Storage == "s3" || c.S3.Used() {
		c.S3.Check(func(key, text string) { bad("s3."+key, text) })
	}
	return errors.Join(errs...)
}

// OpenBlobs opens the place of the files: below the folder dir, in the bucket,
// or in both.
func (c Config) OpenBlobs(dir string) (blob.Store, error) {
	if !c.S3.Used() {
		return blob.OpenDisk(dir)
	}
	far, err := blob.OpenS3(c.S3, filepath.Join(dir, "uploads"))
	if err != nil {
		return nil, err
	}
	_, none := os.Stat(filepath.Join(dir, "00")) // every Disk has it
	if none != nil && c.Storage == "s3" {
		return far, nil
	}
	disk, err := blob.OpenDisk(dir)
	if err != nil {
		return nil, err
	}
	if c.Storage == "s3" {
		return blob.Both{Main: far, Other: disk}, nil
	}
	return blob.Both{Main: disk, Other: far}, nil
}
