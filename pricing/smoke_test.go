package pricing
import ("testing";"fmt")
func TestSmoke(t *testing.T){
 l,err:=NewList([]Line{{Kind:Priced,Patterns:[]string{"/a/*"},Price:1},{Kind:Free,Patterns:[]string{"*.css"}},{Kind:Priced,Methods:[]string{"GET"},Patterns:[]string{"/a/*/pdf"},Price:2}},Decision{Kind:Refused})
 fmt.Println(err)
 for _,p:=range []string{"/a","/a/","/a/x","/A/x/pdf","/b.css","/a/..%2fb.css","/%61","/a;x/y","","*","/a/b%2Fpdf","/x/%252e%252e/a"}{
  r,ok:=Readings(p); d,err:=l.Decide(nil,"POST",p); fmt.Printf("%q %q %v %+v %v\n",p,r,ok,d,err)}
}
