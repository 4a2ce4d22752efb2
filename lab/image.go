package lab

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"crashlab/lab/blame"
	"crashlab/lab/initramfs"
	"crashlab/lab/kernels"
	"crashlab/lab/store"
	"crashlab/lab/wire"
)

// diskDrivers are what both kernels need to write to a virtio disk.
var diskDrivers = []string{"virtio_pci", "virtio_blk"}

// agentSource is what the agent is made of, relative to the checkout.
var agentSource = []string{"lab/agent", "lab/wire", "crashkit/addr", "go.mod", "go.sum"}

// layout changes when images are put together in another way from the same parts.
const layout = "capture kernel unsigned"

// images are the two initramfs images of a run.
type images struct {
	first, capture string // paths in the store
	cached         bool   // nothing had to be built
}

// buildImages builds the initramfs of the capture kernel and, with that one
// inside, the initramfs of the kernel that is to crash. The trigger's module is
// the file ko, if it has one.
func buildImages(ctx context.Context, s *store.Store, root string, k *kernels.Kernel, job wire.FirstJob, ko string) (images, error) {
	var im images
	agent, agentID, hit1, err := buildAgent(ctx, s, root, k.GoArch())
	if err != nil {
		return im, err
	}
	tree, err := initramfs.OpenTree(k.Modules)
	if err != nil {
		return im, blame.New(blame.Kernel, "list the kernel's modules", err)
	}

	const captureName, kernelName, koName = "capture.cpio", "vmlinuz", "modules/"
	captureJob := wire.Job{Capture: &wire.CaptureJob{Disk: wire.CaptureDisk}}
	capture, captureID, hit2, err := storeImage(ctx, s, "capture", []string{agentID, k.ID, key(captureJob), key(diskDrivers)},
		func() (initramfs.Image, error) {
			mods, err := tree.Resolve(diskDrivers...)
			return initramfs.Image{Agent: agent, Modules: mods, Job: captureJob}, err
		})
	if err != nil {
		return im, err
	}

	inputs := []string{agentID, k.ID, captureID, key(job), key(diskDrivers)}
	if ko != "" {
		sum, err := hashFiles(ko)
		if err != nil {
			return im, blame.New(blame.Infrastructure, "read the module", err)
		}
		job.Trigger.Module.Path = "/" + koName + filepath.Base(ko)
		inputs = append(inputs, sum)
	}
	if job.Kexec != nil {
		job.Kexec.Kernel, job.Kexec.Initrd = "/"+kernelName, "/"+captureName
	}
	first, _, hit3, err := storeImage(ctx, s, "first", inputs, func() (initramfs.Image, error) {
		mods, err := tree.Resolve(diskDrivers...)
		img := initramfs.Image{Agent: agent, Modules: mods, Job: wire.Job{First: &job}}
		if job.Kexec != nil {
			image, rerr := os.ReadFile(k.Image)
			if rerr != nil {
				return img, rerr
			}
			// The guest is not locked down: it would load the capture kernel
			// whatever the signature, but only after summing it up.
			if image, rerr = initramfs.UnsignedKernel(image); rerr != nil {
				return img, rerr
			}
			img.Files = append(img.Files,
				initramfs.File{Name: kernelName, Data: image}, initramfs.File{Name: captureName, Source: capture})
		}
		if ko != "" {
			m, rerr := initramfs.ReadModule(ko)
			if rerr != nil {
				return img, rerr
			}
			needs, rerr := tree.ResolveFor(m)
			if rerr != nil {
				return img, rerr
			}
			img.Modules = union(mods, needs)
			img.Files = append(img.Files, initramfs.File{Name: koName + filepath.Base(ko), Data: m.Data})
		}
		return img, err
	})
	return images{first, capture, hit1 && hit2 && hit3}, err
}

// union appends to a the modules of b that are not in it.
func union(a, b []initramfs.Module) []initramfs.Module {
	have := make(map[string]bool)
	for _, m := range a {
		have[m.Name] = true
	}
	for _, m := range b {
		if !have[m.Name] {
			a = append(a, m)
		}
	}
	return a
}

func storeImage(ctx context.Context, s *store.Store, name string, inputs []string, image func() (initramfs.Image, error)) (path, id string, hit bool, err error) {
	k := store.Key{Kind: "initramfs", Name: name, Inputs: append(inputs, layout)}
	dir, hit, err := s.Get(ctx, k, func(_ context.Context, dir string) (err error) {
		im, err := image()
		if err != nil {
			return err
		}
		f, err := os.Create(filepath.Join(dir, name+".cpio"))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		w := bufio.NewWriterSize(f, 1<<20)
		if err := im.Write(w); err != nil {
			return err
		}
		return w.Flush()
	})
	if err != nil {
		return "", "", false, stageError(blame.Infrastructure, "build the "+name+" initramfs", err)
	}
	return filepath.Join(dir, name+".cpio"), k.ID(), hit, nil
}

func buildAgent(ctx context.Context, s *store.Store, root, arch string) (path, id string, hit bool, err error) {
	var sources []string
	for _, name := range agentSource {
		sources = append(sources, filepath.Join(root, name))
	}
	sum, err := hashFiles(sources...)
	if err != nil {
		return "", "", false, blame.New(blame.Infrastructure, "read the agent's source", err)
	}
	k := store.Key{Kind: "agent", Name: "agent", Inputs: []string{sum, arch, runtime.Version()}}
	dir, hit, err := s.Get(ctx, k, func(ctx context.Context, dir string) error {
		return initramfs.BuildAgent(ctx, "go", root, arch, filepath.Join(dir, "agent"))
	})
	if err != nil {
		return "", "", false, stageError(blame.Infrastructure, "build the agent", err)
	}
	return filepath.Join(dir, "agent"), k.ID(), hit, nil
}

// hashFiles returns a hash of the contents and names of files and of all files
// in folders.
func hashFiles(paths ...string) (string, error) {
	h := sha256.New()
	for _, root := range paths {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(h, "%s %d\n", filepath.Base(path), len(b))
			h.Write(b)
			return nil
		})
		if err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

// key renders v for a store key.
func key(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain structs always encode
	}
	return string(b)
}

// stageError blames party for err, unless err already says whose fault it is.
func stageError(party blame.Party, doing string, err error) error {
	if _, ok := errors.AsType[*blame.Error](err); ok {
		return err
	}
	return blame.New(party, doing, err)
}
