package redistest

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
)

// defaultImage is pulled when Docker has no Redis image.
const defaultImage = "redis:7.4-alpine"

const pullTimeout = 2 * time.Minute

// chooseImage returns the image that the user named, or else the newest redis:* that is here, or else one to pull.
// What is here comes first: it costs no network, and on a machine without a registry it is what image/build.sh
// made.
func chooseImage(ctx context.Context, docker client.APIClient) (string, error) {
	if image := os.Getenv(imageVariable); image != "" {
		return image, nil
	}
	list, err := docker.ImageList(ctx, client.ImageListOptions{Filters: make(client.Filters).Add("reference", "redis:*")})
	if err != nil {
		return "", fmt.Errorf("listing images: %w", err)
	}
	var tags []string
	for _, image := range list.Items {
		tags = append(tags, image.RepoTags...)
	}
	return newestImage(tags), nil
}

// pullImage pulls the image if it is not here. Testcontainers would do so too, but tries again and again until the
// context ends: a machine that can reach no registry would wait for minutes in every package before it went on with
// a process.
func pullImage(docker client.APIClient, image string) error {
	if testcontainers.ReadConfig().Config.HubImageNamePrefix != "" {
		return nil // testcontainers will take it from elsewhere, under another name
	}
	ctx, cancel := context.WithTimeout(context.Background(), pullTimeout)
	defer cancel()
	if _, err := docker.ImageInspect(ctx, image); err == nil {
		return nil
	}
	var options client.ImagePullOptions
	if _, auth, err := testcontainers.DockerImageAuth(ctx, image); err == nil {
		if options.RegistryAuth, err = authconfig.Encode(auth); err != nil {
			return err
		}
	}
	progress, err := docker.ImagePull(ctx, image, options)
	if err == nil {
		err = progress.Wait(ctx)
	}
	if err != nil {
		return fmt.Errorf("the image %s is not here and cannot be pulled (internal/redistest/image/build.sh makes one without a registry): %w", image, err)
	}
	return nil
}

// newestImage returns the redis tag with the highest version. Tags without one, such as latest, may be of any age
// and come last.
func newestImage(tags []string) string {
	tags = slices.DeleteFunc(slices.Clone(tags), func(tag string) bool { return !strings.HasPrefix(tag, "redis:") })
	if len(tags) == 0 {
		return defaultImage
	}
	return slices.MaxFunc(tags, func(a, b string) int { return slices.Compare(tagVersion(a), tagVersion(b)) })
}

// tagVersion returns the numbers that a tag starts with: 7, 4 of redis:7.4-alpine.
func tagVersion(tag string) []int {
	_, tag, _ = strings.Cut(tag, ":")
	tag, _, _ = strings.Cut(tag, "-")
	var version []int
	for part := range strings.SplitSeq(tag, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			break
		}
		version = append(version, n)
	}
	return version
}
