package blob

import (
	"net/url"
	"strings"
)

// S3Config is where the bucket is that blobs are in.
type S3Config struct {
	// Endpoint is the address of the server, such as https://s3.example.org.
	Endpoint string `yaml:"endpoint"`

	// Region is what the server calls the place of the bucket.
	Region string `yaml:"region"`

	// Bucket must exist. Nobody but this server should be able to read it.
	Bucket string `yaml:"bucket"`

	// Prefix is what the names of all objects begin with, such as "media/", where
	// the bucket is used for other things, too.
	Prefix string `yaml:"prefix"`

	// AccessKey is the name of who may read, write, delete and list there.
	AccessKey string `yaml:"access_key"`

	// SecretKey is the password that belongs to it.
	SecretKey string `yaml:"secret_key" secret:"true"`
}

// Used tells whether anything is written down.
func (c S3Config) Used() bool {
	return c.Endpoint != "" || c.Bucket != "" || c.AccessKey != "" || c.SecretKey != ""
}

// Check calls bad for everything that is wrong.
func (c S3Config) Check(bad func(key, text string)) {
	if u, err := url.Parse(c.Endpoint); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.User != nil || u.RawQuery != "" {
		bad("endpoint", "must be https:// or http:// and a host, without a path: the bucket has an option of its own")
	}
	for key, value := range map[string]string{"region": c.Region, "bucket": c.Bucket, "access_key": c.AccessKey, "secret_key": c.SecretKey} {
		if value == "" {
			bad(key, "must not be empty")
		}
	}
	if strings.HasPrefix(c.Prefix, "/") || strings.Contains(c.Prefix, "//") {
		bad("prefix", `must not begin with "/" nor have "//" in it`)
	}
}
