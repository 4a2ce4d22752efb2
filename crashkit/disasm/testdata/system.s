 clac
 stac
 encls
 enclu
 vmcall
 vmlaunch
 vmresume
 vmxoff
 pconfig
 monitor
 mwait
 xgetbv
 xsetbv
 vmfunc
 xend
 xtest
 vmrun
 vmmcall
 vmgexit
 vmload
 vmsave
 stgi
 clgi
 skinit
 invlpga
 serialize
 rdpkru
 wrpkru
 swapgs
 rdtscp
 monitorx
 mwaitx
 clzero
 rdpru
 invlpgb
 tlbsync
 psmash
 rmpadjust
 rmpupdate
 pvalidate
 tdcall
 seamcall
 seamret
 seamops
 xsusldtrk
 xresldtrk
 setssbsy
 saveprevssp
 clui
 stui
 testui
 uiret
 mcommit
 endbr64
 endbr32
 wbnoinvd
 wbinvd
 invd
 vzeroupper
 vzeroall
 getsec
 vmread %rax,(%rbx)
 vmread %rax,%rbx
 vmwrite 8(%rbx),%r12
 vmwrite %rax,%rbx
 vmptrld 0(%r13)
 vmptrst (%rax)
 vmclear (%rax)
 vmxon -8(%rbp)
 invept (%rax),%rbx
 invvpid 16(%rax),%rbx
 invpcid (%rax),%rbx
 adcx %eax,%ebx
 adcx (%rax),%rbx
 adox %rax,%rbx
 adox %r8d,%ebx
 movdiri %eax,(%rbx)
 movdiri %rax,(%rbx)
 movdir64b (%rax),%rbx
 enqcmd (%rax),%rbx
 enqcmds 8(%rax),%rbx
 tpause %eax
 umwait %eax
 umonitor %rax
 incsspd %eax
 incsspq %rax
 rdsspd %eax
 rdsspq %r11
 wrssd %eax,(%rbx)
 wrssq %rax,(%rbx)
 wrussd %eax,(%rbx)
 wrussq %rax,(%rbx)
 rstorssp (%rax)
 clrssbsy (%rax)
 senduipi %rax
 rdpid %rax
 clwb 8(%rax)
 clflushopt (%rax)
 cldemote (%rax)
 ptwritel (%rax)
 ptwriteq %rax
 ud1 (%rax),%ebx
 ud0 (%rax),%ebx
 ud2
 rdfsbase %rax
 wrgsbase %rax
 rdgsbase %eax
 xsaves (%rax)
 xsaves64 (%rax)
 xrstors64 (%rax)
 xsavec64 (%rax)
 xrstor64 (%rax)
 fxsave64 (%rax)
 rdrand %eax
 rdseed %rax
 movbe (%rax),%ebx
 movbe %rbx,(%rax)
 crc32b (%rax),%ebx
 crc32q %rax,%rbx
 sha256rnds2 %xmm0,%xmm1,%xmm2
 aesenc %xmm1,%xmm2
 prefetchw (%rax)
 prefetchwt1 (%rax)
 wrmsrns
 rdmsrlist
 wrmsrlist
 xbegin 1f
1: xabort $3
 lfence
 mfence
 sfence
 pause
 hlt
 tzcnt %eax,%ebx
 lzcnt %rax,%rbx
 popcnt (%rax),%ebx
 rorx $3,%rax,%rbx
 mulx %rax,%rbx,%rcx
 pext %rax,%rbx,%rcx
 kmovq %rax,%k1
 tilerelease
 sysexitl
 sysexitq
 sysretq
 sysretl
 sysenter
 syscall
 iretq
 lretq
 int $0x80
 int3
